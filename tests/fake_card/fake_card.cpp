#include "tests/fake_card/fake_card.h"

#include <cstdlib>
#include <cstring>
#include <deque>
#include <memory>
#include <mutex>
#include <utility>
#include <vector>

#include "kernels/cpu/once/device_memory.h"

#include "twinlens/kernels/error.h"
#include "twinlens/kernels/run.h"

namespace twinlens {
namespace {

using test::fake_card;

using Works = std::deque<std::function<void()>>;

struct Queue {
  Works work;
  Works* recorded = nullptr;  // what is queued goes there
  int turns = 0;
  void add(std::function<void()> x) { (recorded != nullptr ? *recorded : work).push_back(std::move(x)); }
  void run_one() {
    const auto next = std::move(work.front());
    work.pop_front();
    next();
  }
  // One in two of its turns: the host sees that something is done, without waiting for it.
  void run_some() {
    if (!work.empty() && ++turns % 2 == 0) run_one();
  }
  void run_all() {
    while (!work.empty()) run_one();
  }
};

// Reached when the queue has come to the newest record.
struct Mark {
  Queue* queue = nullptr;
  std::int64_t recorded = 0, reached = 0;
  void drive(std::int64_t until) {
    while (reached < until) {
      if (queue->work.empty()) throw DeviceError("fake card: an event is waited for that nothing will reach");
      queue->run_one();
    }
  }
};

std::recursive_mutex mutex;

std::shared_ptr<Mark> mark_of(void* event) { return *static_cast<std::shared_ptr<Mark>*>(event); }

Queue& queue_of(const Stream& stream) { return *static_cast<Queue*>(stream.native()); }

// What a card refuses, or must not do, while a stream is recorded.
void refuse_recording(const Stream& stream, const char* what) {
  if (queue_of(stream).recorded != nullptr) throw DeviceError(std::string("fake card: ") + what + " while a graph is recorded");
}

void check_card(Device device) {
  if (device.index != 0)
    throw DeviceError("there is no cuda:" + std::to_string(device.index) + "; the fake machine has one card: use index 0");
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

Stream& device_copy_stream(Device device) {
  check_card(device);
  thread_local Stream stream(device, new Queue());
  return stream;
}

void device_synchronize(Stream& stream) {
  const std::lock_guard lock(mutex);
  refuse_recording(stream, "a wait");
  ++fake_card().waits;
  queue_of(stream).run_all();
}

void* device_allocate(Stream& stream, std::size_t bytes) {
  const std::lock_guard lock(mutex);
  refuse_recording(stream, "an allocation");
  if (fake_card().bytes + bytes > fake_card().capacity) return nullptr;
  void* data = std::aligned_alloc(256, (bytes + 511) / 256 * 256);  // as a card's
  std::memset(data, 0, bytes);
  fake_card().bytes += bytes;
  ++fake_card().allocations;
  blocks()[data] = bytes;
  return data;
}

void device_free(Stream& stream, void* data) {
  const std::lock_guard lock(mutex);
  refuse_recording(stream, "a release");
  const std::size_t bytes = blocks()[data];
  if (fake_card().frees_late) {
    fake_card().freed += bytes;
  } else {
    fake_card().bytes -= bytes;
  }
  blocks().erase(data);
  queue_of(stream).add([data] { std::free(data); });
}

void device_reclaim(Stream& stream) {
  device_synchronize(stream);
  const std::lock_guard lock(mutex);
  fake_card().bytes -= std::exchange(fake_card().freed, 0);
}

void device_copy(Stream& stream, void* to, Device to_device, const void* from, Device from_device, std::size_t bytes) {
  const std::lock_guard lock(mutex);
  Queue& queue = queue_of(stream);
  if (from_device.is_cpu() || to_device.is_cpu()) refuse_recording(stream, "a copy of the host's memory");
  if (from_device.is_cpu()) {
    ++fake_card().pageable_copies;
    const char* begin = static_cast<const char*>(from);
    queue.add([to, staged = std::vector<char>(begin, begin + bytes)] { std::memcpy(to, staged.data(), staged.size()); });
    return;
  }
  queue.add([=] { std::memcpy(to, from, bytes); });
  if (to_device.is_cpu()) device_synchronize(stream);
}

void* pinned_allocate(std::size_t bytes) {
  const std::lock_guard lock(mutex);
  ++fake_card().pinned_allocations;
  return std::calloc(bytes, 1);
}

void pinned_free(void* data) { std::free(data); }

void device_copy_pinned(Stream& stream, void* to, const void* from, std::size_t bytes) {
  const std::lock_guard lock(mutex);
  refuse_recording(stream, "a copy of pinned memory");
  queue_of(stream).add([=] { std::memcpy(to, from, bytes); });
}

// Shared: work that is queued may come to a mark whose event is gone.
void* event_create(Stream&) { return new std::shared_ptr<Mark>(new Mark()); }
void event_destroy(void* event) { delete static_cast<std::shared_ptr<Mark>*>(event); }

void event_record(void* event, Stream& stream) {
  const std::lock_guard lock(mutex);
  refuse_recording(stream, "an event");
  const auto mark = mark_of(event);
  mark->queue = &queue_of(stream);
  mark->queue->add([mark, number = ++mark->recorded] { mark->reached = number; });
}

bool event_reached(void* event) {
  const std::lock_guard lock(mutex);
  const auto mark = mark_of(event);
  if (mark->reached < mark->recorded) mark->queue->run_some();
  return mark->reached >= mark->recorded;
}

void event_wait(void* event) {
  const std::lock_guard lock(mutex);
  const auto mark = mark_of(event);
  if (mark->reached < mark->recorded) ++fake_card().event_waits;
  mark->drive(mark->recorded);
}

void event_hold(void* event, Stream& stream) {
  const std::lock_guard lock(mutex);
  refuse_recording(stream, "a hold");
  const auto mark = mark_of(event);
  queue_of(stream).add([mark, number = mark->recorded] { mark->drive(number); });
}

// A graph is what was queued, to be queued again. (Kernels have a copy of their arguments, as they have on a card.)
void graph_begin(Stream& stream) {
  const std::lock_guard lock(mutex);
  refuse_recording(stream, "another recording");
  queue_of(stream).recorded = new Works();
}

void* graph_end(Stream& stream) {
  const std::lock_guard lock(mutex);
  ++fake_card().graphs;
  return std::exchange(queue_of(stream).recorded, nullptr);
}

void graph_abandon(Stream& stream) noexcept {
  const std::lock_guard lock(mutex);
  delete std::exchange(queue_of(stream).recorded, nullptr);
}

void graph_launch(void* graph, Stream& stream) {
  const std::lock_guard lock(mutex);
  ++fake_card().graph_launches;
  for (const auto& x : *static_cast<Works*>(graph)) queue_of(stream).add(x);
}

void graph_destroy(void* graph) { delete static_cast<Works*>(graph); }

CardMemory device_memory(Device device) {
  check_card(device);
  return {fake_card().capacity - fake_card().bytes, fake_card().capacity};
}

void run_without_kernel(Stream& stream, const char* op, const void* args) {
  const std::lock_guard lock(mutex);
  ++fake_card().kernels;
  const auto body = fake_card().bodies.find(op);
  if (body != fake_card().bodies.end()) {
    queue_of(stream).add(body->second(args));
  } else if (fake_card().calls != nullptr) {
    fake_card().calls->push_back({op, {}});
  }
}

}  // namespace twinlens
