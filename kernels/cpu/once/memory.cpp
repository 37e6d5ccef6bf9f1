#include "twinlens/kernels/memory.h"

#include <algorithm>
#include <atomic>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <map>
#include <mutex>
#include <set>
#include <unordered_map>

#include "kernels/cpu/once/device_memory.h"
#include "kernels/cpu/once/pages.h"
#include "kernels/cpu/once/recording.h"

#include "twinlens/kernels/dry_run.h"
#include "twinlens/kernels/error.h"
#include "twinlens/kernels/graph.h"
#include "twinlens/kernels/scope.h"

namespace twinlens {
namespace {

// Free blocks, by capacity and then by address, so that equal requests are served alike whatever the order in which blocks came back.
using Blocks = std::set<std::pair<std::size_t, void*>>;

// Cached blocks and statistics of one device.
struct Pool {
  std::mutex mutex;
  // For each stream apart: work queued on a stream may still use a block that was freed on it, and only later work of that stream is sure
  // to come after.
  std::map<Stream*, Blocks> cache;
  struct Private {
    Blocks blocks;
    std::size_t taken = 0;
  };
  std::map<std::uint64_t, Private> private_cache;  // what belongs to a MemoryPool
  std::size_t cached_bytes = 0;
  std::size_t bytes = 0;
  std::size_t peak_bytes = 0;
  std::size_t most_bytes = 0;  // the peak since the start
  std::unordered_map<std::string, std::uint32_t> tag_ids;
  std::vector<MemoryTag> tags;
  bool peak_is_stale = false;  // the total has grown since bytes_at_peak was last written
};

// CPU is pool 0, cuda:i is pool i + 1. Pools are never destroyed: memory may outlive static objects.
Pool& pool_of(Device device) {
  static std::mutex mutex;
  static auto* pools = new std::map<int, Pool*>();
  const std::lock_guard lock(mutex);
  Pool*& pool = (*pools)[device.is_cpu() ? 0 : device.index + 1];
  if (pool == nullptr) pool = new Pool();
  return *pool;
}

// Sizes are rounded up so that nearly equal requests share blocks: 1/8 steps between powers of two, at least 512 bytes, and no more than a
// page of 2 MiB.
std::size_t round_up(std::size_t bytes) {
  std::size_t power = 512;
  while (power < bytes) power *= 2;
  if (power <= 4096) return power;
  const std::size_t step = std::min(power / 16, std::size_t{2} << 20);
  return (bytes + step - 1) / step * step;
}

// Pinned memory belongs to no card.
Pool& pinned_pool() {
  static auto* pool = new Pool();
  return *pool;
}

std::uint32_t tag_of(Pool& pool, const std::string& name) {
  const auto [it, is_new] = pool.tag_ids.try_emplace(name, static_cast<std::uint32_t>(pool.tags.size()));
  if (is_new) pool.tags.push_back({name.empty() ? "(no scope)" : name, 0, 0});
  return it->second;
}

void note_peak(Pool& pool) {
  if (!pool.peak_is_stale) return;
  for (MemoryTag& tag : pool.tags) tag.bytes_at_peak = tag.bytes;
  pool.peak_is_stale = false;
}

MemoryReport report_locked(Pool& pool) {
  if (pool.bytes == pool.peak_bytes) note_peak(pool);
  MemoryReport report{pool.bytes, pool.peak_bytes, pool.cached_bytes, pool.tags};
  std::sort(report.tags.begin(), report.tags.end(),
            [](const MemoryTag& a, const MemoryTag& b) { return a.bytes_at_peak > b.bytes_at_peak; });
  return report;
}

// --- guard zones ---------------------------------------------------------------------------------------------------------------------
constexpr std::size_t kGuard = 64;
constexpr std::size_t kDeviceGuard = 256;  // what stands before a block on a card, so that it keeps its alignment
constexpr unsigned char kGuardByte = 0xA5;
constexpr unsigned char kUnwritten = 0xFF;  // NaN in every type of floats, -1 in integers
std::atomic<bool> guards_on{false};
std::atomic<std::int64_t> guard_violations{0};

void note_if_touched(const unsigned char* zone, std::size_t bytes) {
  if (std::any_of(zone, zone + bytes, [](unsigned char c) { return c != kGuardByte; })) ++guard_violations;
}

void* guarded_allocate_on_card(Stream& stream, std::size_t bytes) {
  std::vector<unsigned char> fill(kDeviceGuard + bytes + kGuard, kGuardByte);
  std::memset(fill.data() + kDeviceGuard, kUnwritten, bytes);
  auto* base = static_cast<unsigned char*>(device_allocate(stream, fill.size()));
  if (base == nullptr) return nullptr;
  device_copy(stream, base, stream.device(), fill.data(), kCpu, fill.size());
  return base + kDeviceGuard;
}

// Waits for the stream: guards are for tests.
void guarded_free_on_card(Stream& stream, void* data, std::size_t bytes) {
  auto* start = static_cast<unsigned char*>(data);
  unsigned char before[kDeviceGuard] = {}, after[kGuard] = {};
  try {
    device_copy(stream, before, kCpu, start - kDeviceGuard, stream.device(), sizeof before);
    device_copy(stream, after, kCpu, start + bytes, stream.device(), sizeof after);
  } catch (const Error&) {  // a card that has failed: reported where it did; the zones, unread, count as touched
  }
  note_if_touched(before, sizeof before);
  note_if_touched(after, sizeof after);
  device_free(stream, start - kDeviceGuard);
}

void* guarded_allocate(Stream& stream, std::size_t bytes) {
  if (stream.device().is_cuda()) return guarded_allocate_on_card(stream, bytes);
  const std::size_t padded = (bytes + 63) / 64 * 64 + 2 * kGuard;
  auto* base = static_cast<unsigned char*>(std::aligned_alloc(64, padded));
  if (base == nullptr) return nullptr;
  std::memset(base, kGuardByte, padded);
  std::memset(base + kGuard, kUnwritten, bytes);
  return base + kGuard;
}

void guarded_free(Stream& stream, void* data, std::size_t bytes) {
  if (stream.device().is_cuda()) return guarded_free_on_card(stream, data, bytes);
  auto* start = static_cast<unsigned char*>(data);
  note_if_touched(start - kGuard, kGuard);
  note_if_touched(start + bytes, kGuard);
  std::free(start - kGuard);
}

void* raw_allocate(Stream& stream, std::size_t bytes) {
  return stream.device().is_cuda() ? device_allocate(stream, bytes) : pages_allocate(bytes);
}

void raw_free(Stream& stream, void* data, std::size_t bytes) {
  if (stream.device().is_cuda()) {
    device_free(stream, data);
  } else {
    pages_free(data, bytes);
  }
}

void release_locked(Pool& pool) {
  for (const auto& [stream, blocks] : pool.cache) {
    for (const auto& [capacity, data] : blocks) stream == nullptr ? pinned_free(data) : raw_free(*stream, data, capacity);
  }
  pool.cache.clear();
  pool.cached_bytes = 0;
  for (const auto& [owner, its] : pool.private_cache) {
    for (const auto& [capacity, data] : its.blocks) pool.cached_bytes += capacity;
  }
}

std::atomic<bool> is_thrifty{false};
std::atomic<std::int64_t> streaming_size{16 << 20};  // half of what eight cores share

// Makes room for `bytes` more among what the pool holds, largest blocks first.
void trim(Pool& pool, std::size_t bytes) {
  for (auto& [stream, blocks] : pool.cache) {
    if (stream == nullptr) continue;  // pinned
    const std::size_t limit = std::max(pool.most_bytes + pool.most_bytes / 16, pool.bytes + bytes);
    while (!blocks.empty() && pool.bytes + pool.cached_bytes + bytes > limit) {
      const auto largest = std::prev(blocks.end());
      raw_free(*stream, largest->second, largest->first);
      pool.cached_bytes -= std::min(pool.cached_bytes, largest->first);
      blocks.erase(largest);
    }
  }
}

std::string megabytes(std::size_t bytes) {
  char text[32];
  std::snprintf(text, sizeof text, "%.1f MB", static_cast<double>(bytes) / 1e6);
  return text;
}

// The blocks of a tower are one: visual.transformer.resblocks.3.mlp -> visual.transformer.resblocks.*.mlp
std::string without_numbers(const std::string& path) {
  std::string out;
  for (std::size_t begin = 0; begin <= path.size();) {
    const std::size_t end = std::min(path.find('.', begin), path.size());
    const std::string part = path.substr(begin, end - begin);
    const bool number = !part.empty() && part.find_first_not_of("0123456789") == std::string::npos;
    out += (begin > 0 ? "." : "") + (number ? "*" : part);
    begin = end + 1;
  }
  return out;
}

// "visual.transformer.resblocks.*.mlp 812.3 MB, ..."
std::string largest_tags(const Pool& pool) {
  constexpr std::size_t kMost = 4;
  std::map<std::string, std::size_t> sums;
  for (const MemoryTag& tag : pool.tags) sums[without_numbers(tag.name)] += tag.bytes;
  std::multimap<std::size_t, std::string, std::greater<>> by_size;
  for (const auto& [name, bytes] : sums) by_size.emplace(bytes, name);
  std::string text;
  std::size_t listed = 0;
  for (const auto& [bytes, name] : by_size) {
    if (bytes == 0 || listed++ == kMost) break;
    text += (text.empty() ? "" : ", ") + name + " " + megabytes(bytes);
  }
  return text.empty() ? "nothing" : text;
}

std::string room_on(Device device) {
  if (device.is_cpu()) return "cpu";
  const std::string name = "cuda:" + std::to_string(device.index);
  try {
    const CardMemory card = device_memory(device);
    return name + ", which has " + megabytes(card.total) + " in all and " + megabytes(card.free) + " free";
  } catch (const Error&) {  // a card that does not answer: the other half of the message is worth having
    return name;
  }
}

[[noreturn]] void throw_out_of_memory(Pool& pool, Device device, std::size_t bytes) {
  const std::string& scope = Scope::path();
  throw DeviceError("out of memory: " + megabytes(bytes) + " more are wanted" + (scope.empty() ? "" : " in " + scope) + " on " +
                    room_on(device) + "; tensors have " + megabytes(pool.bytes) + "; largest: " + largest_tags(pool) +
                    "; lower --batch-size or --max-chunk, use --grad-checkpointing, or let --memory-limit choose");
}

}  // namespace

Memory allocate(Stream& stream, std::size_t bytes) {
  Memory memory;
  memory.device_ = stream.device();
  memory.stream_ = &stream;
  memory.bytes_ = bytes;
  memory.counted_ = memory.capacity_ = round_up(bytes == 0 ? 1 : bytes);
  if (DryRun* dry = DryRun::current()) {
    memory.dry_ = true;
    memory.data_ = dry->take(stream.device(), memory.capacity_);
    return memory;
  }
  Pool& pool = pool_of(stream.device());
  const std::lock_guard lock(pool.mutex);

  const MemoryPool* const owner = MemoryPool::current(stream);
  memory.pool_ = owner != nullptr ? owner->number() : 0;
  Blocks& blocks = owner != nullptr ? pool.private_cache[memory.pool_].blocks : pool.cache[&stream];
  const auto found = blocks.lower_bound({memory.capacity_, nullptr});
  const bool may_take = stream.device().is_cpu() || !Graph::recording();  // from the system or the card
  if (guards_on) {
    if (!may_take) throw NoBlock();
    memory.guarded_ = true;
    memory.data_ = guarded_allocate(stream, bytes);
    if (memory.data_ == nullptr) throw_out_of_memory(pool, stream.device(), bytes);
  } else if (found != blocks.end() && found->first <= memory.capacity_ + memory.capacity_ / 4) {
    memory.capacity_ = found->first;
    memory.data_ = found->second;
    pool.cached_bytes -= memory.counted_;  // (what is more than that stays cached)
    blocks.erase(found);
  } else {
    if (!may_take) throw NoBlock();
    if (is_thrifty) trim(pool, memory.capacity_);
    memory.data_ = raw_allocate(stream, memory.capacity_);
    if (memory.data_ == nullptr) {
      release_locked(pool);
      if (stream.device().is_cuda()) device_reclaim(stream);
      memory.data_ = raw_allocate(stream, memory.capacity_);
    }
    if (memory.data_ == nullptr) {
      memory.capacity_ = 0;
      throw_out_of_memory(pool, stream.device(), bytes);
    }
  }
  if (owner != nullptr) pool.private_cache[memory.pool_].taken += memory.counted_;
  memory.tag_ = tag_of(pool, Scope::path());
  pool.tags[memory.tag_].bytes += memory.counted_;
  pool.bytes += memory.counted_;
  pool.most_bytes = std::max(pool.most_bytes, pool.bytes);
  if (pool.bytes > pool.peak_bytes) {
    pool.peak_bytes = pool.bytes;
    pool.peak_is_stale = true;
  }
  return memory;
}

Memory allocate_pinned(std::size_t bytes) {
  Memory memory;
  memory.pinned_ = true;
  memory.bytes_ = bytes;
  memory.counted_ = memory.capacity_ = round_up(bytes == 0 ? 1 : bytes);
  Pool& pool = pinned_pool();
  const std::lock_guard lock(pool.mutex);
  Blocks& blocks = pool.cache[nullptr];
  const auto found = blocks.lower_bound({memory.capacity_, nullptr});
  if (found != blocks.end() && found->first <= memory.capacity_ + memory.capacity_ / 4) {
    memory.capacity_ = found->first;
    memory.data_ = found->second;
    blocks.erase(found);
    return memory;
  }
  memory.data_ = pinned_allocate(memory.capacity_);
  if (memory.data_ == nullptr) {
    release_locked(pool);
    memory.data_ = pinned_allocate(memory.capacity_);
  }
  if (memory.data_ == nullptr) {
    throw DeviceError(
        "out of memory: " + megabytes(bytes) +
        " of pinned host memory; batches on their way to a card; lower --batch-size or --prefetch-batches, or raise ulimit -l");
  }
  return memory;
}

void Memory::release() noexcept {
  if (data_ == nullptr) return;
  if (pinned_) {
    Pool& pool = pinned_pool();
    const std::lock_guard lock(pool.mutex);
    pool.cache[nullptr].emplace(capacity_, data_);
    data_ = nullptr;
    return;
  }
  if (dry_) {
    if (DryRun* dry = DryRun::current()) dry->give_back(data_, device_, capacity_);
    data_ = nullptr;
    return;
  }
  Pool& pool = pool_of(device_);
  const std::lock_guard lock(pool.mutex);
  if (pool.bytes == pool.peak_bytes) note_peak(pool);
  pool.bytes -= counted_;
  pool.tags[tag_].bytes -= counted_;
  const auto owner = pool.private_cache.find(pool_);
  if (owner != pool.private_cache.end()) owner->second.taken -= counted_;
  if (guarded_) {
    guarded_free(*stream_, data_, bytes_);
  } else {
    (owner != pool.private_cache.end() ? owner->second.blocks : pool.cache[stream_]).emplace(capacity_, data_);
    pool.cached_bytes += counted_;
  }
  data_ = nullptr;
}

MemoryPool::MemoryPool(Stream& stream) : stream_(stream) {
  static std::atomic<std::uint64_t> last{0};
  number_ = ++last;
}

MemoryPool::~MemoryPool() {
  Pool& pool = pool_of(stream_.device());
  const std::lock_guard lock(pool.mutex);
  pool.cache[&stream_].merge(pool.private_cache[number_].blocks);
  pool.private_cache.erase(number_);
}

std::size_t MemoryPool::taken() const {
  Pool& pool = pool_of(stream_.device());
  const std::lock_guard lock(pool.mutex);
  return pool.private_cache[number_].taken;
}

Memory::Memory(Memory&& other) noexcept { *this = static_cast<Memory&&>(other); }

Memory& Memory::operator=(Memory&& other) noexcept {
  if (this == &other) return *this;
  release();
  data_ = other.data_;
  bytes_ = other.bytes_;
  counted_ = other.counted_;
  capacity_ = other.capacity_;
  guarded_ = other.guarded_;
  pinned_ = other.pinned_;
  dry_ = other.dry_;
  device_ = other.device_;
  tag_ = other.tag_;
  stream_ = other.stream_;
  pool_ = other.pool_;
  other.data_ = nullptr;
  return *this;
}

Memory::~Memory() { release(); }

void set_thrifty_memory(bool on) { is_thrifty = on; }

std::int64_t past_caches_from() { return streaming_size.load(std::memory_order_relaxed); }
void set_past_caches_from(std::int64_t bytes) { streaming_size.store(bytes, std::memory_order_relaxed); }
void set_memory_guards(bool on) { guards_on = on; }
std::int64_t memory_guard_violations() { return guard_violations; }

MemoryReport memory_report(Device device) {
  Pool& pool = pool_of(device);
  const std::lock_guard lock(pool.mutex);
  return report_locked(pool);
}

std::string to_string(const MemoryReport& report) {
  const auto mib = [](std::size_t bytes) {
    char text[32];
    std::snprintf(text, sizeof text, "%.1f MiB", static_cast<double>(bytes) / (1024.0 * 1024.0));
    return std::string(text);
  };
  std::string text = "in use " + mib(report.bytes) + ", peak " + mib(report.peak_bytes) + ", cached " + mib(report.cached_bytes) + "\n";
  for (const MemoryTag& tag : report.tags) {
    if (tag.bytes_at_peak == 0 && tag.bytes == 0) continue;
    text += "  " + tag.name + ": " + mib(tag.bytes_at_peak) + " at the peak, " + mib(tag.bytes) + " now\n";
  }
  return text;
}

void reset_peak_memory(Device device) {
  Pool& pool = pool_of(device);
  const std::lock_guard lock(pool.mutex);
  pool.peak_bytes = pool.bytes;
  pool.peak_is_stale = true;
  note_peak(pool);
}

CardMemory card_memory(Device device) { return device_memory(device); }

void release_cached_memory(Device device) {
  Pool& pool = pool_of(device);
  const std::lock_guard lock(pool.mutex);
  release_locked(pool);
}

}  // namespace twinlens
