#include "tests/fake_card/fake_card.h"

#include <cstdlib>
#include <cstring>
#include <deque>
#include <mutex>
#include <vector>

#include "kernels/cpu/once/device_memory.h"

#include "twinlens/kernels/error.h"
#include "twinlens/kernels/run.h"

namespace twinlens {
namespace {

using test::fake_card;

struct Queue {
  std::deque<std::function<void()>> work;
  void run_one() {
    const auto next = std::move(work.front());
    work.pop_front();
    next();
  }
  void run_all() {
    while (!work.empty()) run_one();
  }
};

std::recursive_mutex mutex;

Queue& queue_of(const Stream& stream) { return *static_cast<Queue*>(stream.native()); }

void check_card(Device device) {
  if (device.index != 0) throw DeviceError("there is no cuda:" + std::to_string(device.index) + "; the fake machine has one card");
}

// The sizes of blocks, for the card's count.
std::map<void*, std::size_t>& blocks() {
  static auto* all = new std::map<void*, std::size_t>();
  return *all;
}

}  // namespace

namespace test {

FakeCard& fake_card() {
  static FakeCard card;
  return card;
}

}  // namespace test

int device_count() { return 1; }
const char* device_unavailable_reason() { return ""; }

Stream& device_stream(Device device) {
  check_card(device);
  thread_local Stream stream(device, new Queue());  // never destroyed, as those of a card
  return stream;
}

void device_synchronize(Stream& stream) {
  const std::lock_guard lock(mutex);
  ++fake_card().waits;
  queue_of(stream).run_all();
}

void* device_allocate(Stream&, std::size_t bytes) {
  const std::lock_guard lock(mutex);
  if (fake_card().bytes + bytes > fake_card().capacity) return nullptr;
  void* data = std::calloc(bytes + 256, 1);
  fake_card().bytes += bytes;
  ++fake_card().allocations;
  blocks()[data] = bytes;
  return data;
}

void device_free(Stream& stream, void* data) {
  const std::lock_guard lock(mutex);
  fake_card().bytes -= blocks()[data];
  blocks().erase(data);
  queue_of(stream).work.emplace_back([data] { std::free(data); });
}

void device_copy(Stream& stream, void* to, Device to_device, const void* from, Device from_device, std::size_t bytes) {
  const std::lock_guard lock(mutex);
  Queue& queue = queue_of(stream);
  if (from_device.is_cpu()) {
    ++fake_card().pageable_copies;
    const char* begin = static_cast<const char*>(from);
    queue.work.emplace_back([to, staged = std::vector<char>(begin, begin + bytes)] { std::memcpy(to, staged.data(), staged.size()); });
    return;
  }
  queue.work.emplace_back([=] { std::memcpy(to, from, bytes); });
  if (to_device.is_cpu()) device_synchronize(stream);
}

CardMemory device_memory(Device device) {
  check_card(device);
  return {fake_card().capacity - fake_card().bytes, fake_card().capacity};
}

void run_without_kernel(Stream& stream, const char* op, const void* args) {
  const std::lock_guard lock(mutex);
  ++fake_card().kernels;
  const auto body = fake_card().bodies.find(op);
  if (body != fake_card().bodies.end()) queue_of(stream).work.push_back(body->second(args));
}

}  // namespace twinlens
