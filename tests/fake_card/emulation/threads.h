#pragma once
// A card's threads on one of the host's: each is a fiber that runs until it waits for others, at a barrier of its block or in what the
// lanes of a warp do together. Blocks, warps and lanes take their turns in an order that is drawn anew for every launch, so that a result
// that hangs on who comes first is another one when it is computed again.
//
// Not here: what a card does at the same time (blocks run one after another), its caches, and how fast it is.

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <functional>
#include <type_traits>

namespace twinlens::emulated {

struct Index3 {
  unsigned x, y, z;
  constexpr Index3(unsigned x_ = 1, unsigned y_ = 1, unsigned z_ = 1) : x(x_), y(y_), z(z_) {}  // NOLINT: as CUDA's dim3
};

inline constexpr int kLanes = 32;

// What launchers ask of a card. An H200 has as much shared memory for a block, but more processors, and launches get larger with them.
struct Card {
  int processors = 4, shared_bytes = 227 * 1024;
};
Card& card();

// Of the thread whose turn it is.
extern Index3 thread_index, block_index, block_size, grid_size;
// The block's shared memory whose size the launch gives. Begins as NaN.
void* dynamic_shared();

// Waits for all threads of the block that have not ended.
void wait_for_block();

// Every lane of `mask` gives `bytes` (32 at most) and comes back when all have; then all[lane] is what each gave, until this lane's next
// call. A lane of the mask that never comes is an error.
struct Given {
  alignas(16) unsigned char bytes[kLanes][32];
};
const Given& exchange(unsigned mask, const void* data, std::size_t bytes);
int lane();

// What lane `from` has in x; x itself where there is no such lane.
template <class T>
T from_lane(unsigned mask, T x, int from) {
  static_assert(std::is_trivially_copyable_v<T> && sizeof(T) <= sizeof(Given::bytes[0]));
  const Given& all = exchange(mask, &x, sizeof x);
  if (from >= 0 && from < kLanes) std::memcpy(&x, all.bytes[from], sizeof x);
  return x;
}

// 16 bytes to shared memory in the background, zeros where `from` is null: as late as a card may, when the thread waits for their group.
void copy_later(void* to, const void* from);
void end_group_of_copies();
void finish_groups_but(int left);

// kernel<<<grid, block, shared_bytes, stream>>>(...), with `body` for the call of the kernel.
class Launch {
 public:
  Launch(Index3 grid, Index3 block, std::size_t shared_bytes, const void* stream);
  void run(const std::function<void()>& body) const;

 private:
  Index3 grid_, block_;
  std::size_t shared_bytes_;
};

}  // namespace twinlens::emulated
