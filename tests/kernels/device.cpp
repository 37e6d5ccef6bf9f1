#include <algorithm>
#include <catch2/catch.hpp>
#include <string>
#include <vector>

#include "tests/support/no_card.h"

#include "twinlens/kernels/error.h"
#include "twinlens/kernels/memory.h"
#include "twinlens/kernels/stream.h"

namespace twinlens {
namespace {

constexpr Device kCuda{DeviceType::cuda, 0};

std::string message_of(void (*call)()) {
  try {
    call();
  } catch (const DeviceError& error) {
    return error.what();
  }
  return {};
}

}  // namespace

TEST_CASE("a machine without a usable card says so in one line with the remedy", "[cuda]") {
  const std::string reason = cuda_unavailable_reason();
  if (cuda_device_count() > 0) {
    CHECK(reason.empty());
    CHECK_THAT(message_of([] { current_stream({DeviceType::cuda, 4096}); }), Catch::Contains("no cuda:4096") && Catch::Contains("use"));
    return;
  }
  WARN("no CUDA tests are run: " << reason);
  CHECK_THAT(reason, Catch::Contains("--device cpu"));
  CHECK(reason.find('\n') == std::string::npos);
  CHECK(message_of([] { current_stream(kCuda); }) == reason);
}

TEST_CASE("bytes go to the card and back", "[cuda]") {
  if (test::no_card()) return;
  Stream& stream = current_stream(kCuda);
  CHECK(stream.native() != nullptr);
  const Memory memory = allocate(stream, 1000);
  CHECK(reinterpret_cast<std::uintptr_t>(memory.data()) % 256 == 0);
  const std::string sent(1000, 'x');
  std::string received(1000, ' ');
  copy_bytes(stream, memory.data(), kCuda, sent.data(), kCpu, 1000);
  copy_bytes(stream, received.data(), kCpu, memory.data(), kCuda, 1000);
  CHECK(received == sent);
}

TEST_CASE("freed blocks serve later requests of about their size on the same stream", "[memory]") {
  Stream& stream = current_stream(kCpu);
  Stream other(kCpu);
  void* first = nullptr;
  {
    const Memory memory = allocate(stream, 5'000'000);
    first = memory.data();
    CHECK(reinterpret_cast<std::uintptr_t>(first) % 64 == 0);
  }
  {
    const Memory elsewhere = allocate(other, 5'000'000);
    CHECK(elsewhere.data() != first);
    const Memory again = allocate(stream, 4'990'000);
    CHECK(again.data() == first);
  }
  release_cached_memory(kCpu);
  CHECK(memory_report(kCpu).cached_bytes == 0);
}

TEST_CASE("thrifty memory keeps little more than was ever in use at once", "[memory]") {
  Stream& stream = current_stream(kCpu);
  release_cached_memory(kCpu);
  std::size_t most = 0;
  const auto hold = [&](std::size_t bytes) {
    std::vector<Memory> held;
    for (int i = 0; i < 8; ++i) held.push_back(allocate(stream, bytes));
    most = std::max(most, memory_report(kCpu).bytes);
  };
  set_thrifty_memory(true);
  for (int round = 0; round < 2; ++round) {
    for (const std::size_t bytes : {24'000'000, 5'000'000, 12'000'000, 700'000}) {
      hold(bytes);
      const MemoryReport report = memory_report(kCpu);
      CHECK(report.bytes + report.cached_bytes <= most + most / 16);
    }
  }
  set_thrifty_memory(false);
  for (const std::size_t bytes : {24'000'000, 5'000'000}) hold(bytes);
  CHECK(memory_report(kCpu).cached_bytes > most + most / 16);
  release_cached_memory(kCpu);
}

}  // namespace twinlens
