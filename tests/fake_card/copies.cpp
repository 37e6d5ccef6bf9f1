// Copies that the host does not wait for: what arrives is what was sent, whenever the card comes to it.

#include <catch2/catch.hpp>
#include <vector>

#include "kernels/cpu/once/staging.h"
#include "tests/fake_card/fake_card.h"

#include "twinlens/core/tensor.h"

namespace twinlens::test {
namespace {

constexpr Device kCard{DeviceType::cuda, 0};

std::vector<unsigned char> message(int number, std::size_t bytes) {
  std::vector<unsigned char> x(bytes);
  for (std::size_t i = 0; i < bytes; ++i) x[i] = static_cast<unsigned char>(static_cast<std::size_t>(number) * 37 + i * 11);
  return x;
}

}  // namespace

TEST_CASE("the host waits for an event only when it asks to, and a stream that is held waits with it", "[fake]") {
  Stream& work = current_stream(kCard);
  Stream& copies = copy_stream(kCard);
  CHECK(work.native() != copies.native());
  const Memory host = allocate_pinned(4), back = allocate_pinned(4), card = allocate(work, 4);
  *static_cast<int*>(host.data()) = 5;
  *static_cast<int*>(back.data()) = 0;
  Event sent, returned;
  CHECK(sent.reached());
  copy_pinned(copies, card.data(), host.data(), 4);
  sent.record(copies);
  sent.hold(work);
  copy_pinned(work, back.data(), card.data(), 4);
  returned.record(work);
  CHECK(*static_cast<int*>(back.data()) == 0);
  returned.wait();
  CHECK(*static_cast<int*>(back.data()) == 5);
  CHECK(sent.reached());
}

TEST_CASE("small copies go through a ring of pinned bytes, each of which is used again when its copy is done", "[fake]") {
  Stream& stream = current_stream(kCard);
  synchronize(stream);
  Staging ring(4096);
  CHECK(ring.largest() == 1024);
  const Memory card = allocate(stream, 200 * 1024);
  const std::int64_t before = fake_card().event_waits;
  std::size_t most = 0;
  for (int i = 0; i < 200; ++i) {
    // From one byte to the largest; what the host sends is gone at once.
    std::vector<unsigned char> sent = message(i, static_cast<std::size_t>(i * 389 % 1024 + 1));
    ring.copy(stream, static_cast<char*>(card.data()) + i * 1024, sent.data(), sent.size());
    sent.assign(sent.size(), 0xEE);
    most = std::max(most, ring.waiting());
  }
  CHECK(most >= 4);
  CHECK(fake_card().event_waits > before);  // the ring was full
  synchronize(stream);
  for (int i = 0; i < 200; ++i) {
    const std::vector<unsigned char> want = message(i, static_cast<std::size_t>(i * 389 % 1024 + 1));
    std::vector<unsigned char> got(want.size());
    copy_bytes(stream, got.data(), kCpu, static_cast<char*>(card.data()) + i * 1024, kCard, got.size());
    INFO("copy " << i);
    CHECK(got == want);
  }
}

TEST_CASE("tensors go to a card through the ring where that is switched on", "[fake]") {
  synchronize(current_stream(kCard));
  const std::int64_t before = fake_card().pageable_copies;
  set_staged_copies(true);
  std::vector<Tensor> there;
  for (int i = 0; i < 300; ++i) there.push_back(from_vector(std::vector<float>(10'000, static_cast<float>(i)), {10'000}).to(kCard));
  CHECK(fake_card().pageable_copies == before);
  const Tensor large = empty({17 << 20}, DType::u8).to(kCard);  // too large for the ring
  CHECK(fake_card().pageable_copies == before + 1);
  set_staged_copies(false);
  for (int i = 0; i < 300; ++i) {
    std::vector<float> got(10'000);
    copy_bytes(current_stream(kCard), got.data(), kCpu, there[static_cast<std::size_t>(i)].raw(), kCard, 40'000);
    CHECK(got == std::vector<float>(10'000, static_cast<float>(i)));
  }
}

TEST_CASE("pinned memory that is given back serves the next request of its size", "[fake]") {
  { const Memory first = allocate_pinned(1'000'000); }
  const std::int64_t before = fake_card().pinned_allocations;
  for (int i = 0; i < 5; ++i) allocate_pinned(990'000);
  CHECK(fake_card().pinned_allocations == before);
}

}  // namespace twinlens::test
