#pragma once
// Memory: owned, stream-ordered, tagged. Blocks are cached per device and reused by later allocations of about the same size, so that a
// steady training step takes nothing from the operating system. Every block remembers the Scope in which it was asked for.
//
// Alignment is 64 bytes on the CPU and 256 on CUDA. Freeing is thread-safe. A block freed on one stream may be reused by later work of
// the same stream only.

#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

#include "twinlens/kernels/stream.h"

namespace twinlens {

class Memory {
 public:
  Memory() = default;
  Memory(Memory&& other) noexcept;
  Memory& operator=(Memory&& other) noexcept;
  ~Memory();

  void* data() const { return data_; }
  std::size_t bytes() const { return bytes_; }
  Device device() const { return device_; }

 private:
  friend Memory allocate(Stream& stream, std::size_t bytes);
  friend Memory allocate_pinned(std::size_t bytes);
  void release() noexcept;

  void* data_ = nullptr;
  std::size_t bytes_ = 0;
  std::size_t counted_ = 0;   // bytes_ rounded up, as reports have it
  std::size_t capacity_ = 0;  // of the block: more, when it was kept from a larger request
  bool guarded_ = false;
  bool pinned_ = false;
  bool dry_ = false;  // of a DryRun: no memory stands behind it
  Device device_;
  std::uint32_t tag_ = 0;
  Stream* stream_ = nullptr;
  std::uint64_t pool_ = 0;  // number of the MemoryPool whose it is; 0: of its stream
};

// `bytes` of uninitialised memory on the stream's device. Throws DeviceError, naming the largest tags, when there is none left.
Memory allocate(Stream& stream, std::size_t bytes);

// Copies bytes between any two devices, ordered on `stream`. Host memory is pageable, so host copies return when done: those from a card
// when its stream has come to them, those to a card when the bytes may be overwritten.
void copy_bytes(Stream& stream, void* to, Device to_device, const void* from, Device from_device, std::size_t bytes);

// Host memory that a card reads and writes by itself. It is kept for reuse as other memory is, and not in memory_report(); who gives it
// back must know that no copy is under way. Throws DeviceError without a card.
Memory allocate_pinned(std::size_t bytes);

// Copies between a card and pinned memory, in stream order, and returns at once: both sides stay as they are until an Event recorded
// behind the copy has been reached.
void copy_pinned(Stream& stream, void* to, const void* from, std::size_t bytes);

// Whether copy_bytes goes to a card by way of pinned memory where the copy is small (16 MiB at most). The host then waits for nothing that
// the stream has before it. Off until it is switched on.
void set_staged_copies(bool on);

struct MemoryTag {
  std::string name;
  std::size_t bytes = 0;          // alive now
  std::size_t bytes_at_peak = 0;  // alive when the device's total was highest
};

struct MemoryReport {
  std::size_t bytes = 0;         // alive now: what was asked for, rounded up to the sizes that blocks have
  std::size_t peak_bytes = 0;    // the highest total since the start or the last reset_peak_memory
  std::size_t cached_bytes = 0;  // kept for reuse: free blocks, and what a block has beyond the request that it serves
  std::vector<MemoryTag> tags;   // by bytes_at_peak, largest first
};

MemoryReport memory_report(Device device);
std::string to_string(const MemoryReport& report);
void reset_peak_memory(Device device);

// For tests: blocks handed out while guards are on begin as NaN, so that what reads them unwritten shows, and have a zone of known bytes
// before and after what was asked for, checked when the block is freed (on a card that waits for the stream).
// memory_guard_violations() counts the zones that were written to.
void set_memory_guards(bool on);
std::int64_t memory_guard_violations();

// On: blocks in use and blocks kept for reuse stay together within 1/16 above the most that was ever in use at once, as kept ones of other
// sizes are given back before a new one is taken. Off, as it is from the start: a steady step takes nothing from the operating system.
void set_thrifty_memory(bool on);

// On the CPU, outputs of at least this many bytes are written with non-temporal stores (elementwise and row kernels, attention): they
// would leave the caches before anyone reads them. The numbers are the same either way.
std::int64_t past_caches_from();
void set_past_caches_from(std::int64_t bytes);

// What a card has in all, and what of it nobody has taken: other programs' memory, this one's cached blocks and the driver's own are not
// free. Throws DeviceError where there is no such card.
struct CardMemory {
  std::size_t free = 0, total = 0;
};
CardMemory card_memory(Device device);

// Gives cached blocks back to the operating system or driver, but for those of a MemoryPool.
void release_cached_memory(Device device);

}  // namespace twinlens
