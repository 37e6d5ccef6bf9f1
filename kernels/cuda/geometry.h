#pragma once
// How CUDA kernels are cut into blocks: plain host functions, so that tests/kernels/cuda_geometry.cpp can check the arithmetic on a
// machine without a GPU. Nothing here includes a CUDA header.

#include <cstdint>

#include "kernels/cpu/strided_plan.h"

#include "twinlens/kernels/dtype.h"

namespace twinlens::cuda {

inline constexpr int kWarp = 32;
inline constexpr std::int64_t kMaxBlocks = 0x7FFFFFFF;  // of gridDim.x; y and z end at 65535

constexpr std::int64_t ceil_div(std::int64_t a, std::int64_t b) { return (a + b - 1) / b; }

// One thread for `per_thread` consecutive elements.
struct ElementLaunch {
  static constexpr unsigned kThreads = 256;
  unsigned blocks = 0;  // 0: nothing to do, do not launch
};
constexpr ElementLaunch element_launch(std::int64_t count, int per_thread) {
  return {static_cast<unsigned>(ceil_div(count, std::int64_t{per_thread} * ElementLaunch::kThreads))};
}

// Elements of a 16-byte word.
constexpr int pack_of(DType t) { return static_cast<int>(16 / size_of(t)); }

// A group of threads per row: a warp for rows that fit a few registers per lane, a block of 256 for wider ones. Blocks are
// (threads_per_row, rows_per_block). Either way a group leaves or synchronises as a whole: wide rows have one group per block.
struct RowLaunch {
  static constexpr std::int64_t kWidestForWarp = 2048;
  unsigned blocks = 0;
  unsigned threads_per_row = kWarp;
  unsigned rows_per_block = 1;
};
constexpr RowLaunch row_launch(std::int64_t rows, std::int64_t cols) {
  if (rows <= 0 || cols <= 0) return {};
  if (cols > RowLaunch::kWidestForWarp) return {static_cast<unsigned>(rows), 256, 1};
  return {static_cast<unsigned>(ceil_div(rows, 4)), kWarp, 4};
}

// The same where a row of no elements still has a result (a sum, a loss).
constexpr RowLaunch row_result_launch(std::int64_t rows, std::int64_t cols) { return row_launch(rows, cols > 0 ? cols : 1); }

// Kernels that also reduce over rows give each block a fixed number of rows: the cut, and so the result's bits, depend on nothing else.
constexpr RowLaunch row_block_launch(std::int64_t rows, std::int64_t cols, std::int64_t rows_of_a_block) {
  if (rows <= 0 || cols <= 0) return {};
  const auto blocks = static_cast<unsigned>(ceil_div(rows, rows_of_a_block));
  return cols > RowLaunch::kWidestForWarp ? RowLaunch{blocks, 256, 1} : RowLaunch{blocks, kWarp, 8};
}

// Whether packs of `pack` elements that start at multiples of `pack` in every row can be moved in whole words (of 16 bytes, or of the
// pack where that is smaller).
inline bool packs_are_aligned(const void* data, std::int64_t stride, std::int64_t element_size, int pack) {
  const std::int64_t bytes = pack * element_size;
  const std::int64_t word = bytes < 16 ? bytes : 16;
  return reinterpret_cast<std::uintptr_t>(data) % static_cast<std::uintptr_t>(word) == 0 && stride * element_size % word == 0;
}

// Whether dense packs of 16 bytes or less from `data` on can be moved in whole words.
inline bool is_aligned(const void* data) { return packs_are_aligned(data, 0, 16, 1); }

// The widest word, at most 16 bytes, in which runs of `bytes` that start at multiples of `bytes` from both addresses can be moved.
inline std::int64_t common_word(const void* x, const void* y, std::int64_t bytes) {
  const auto all = reinterpret_cast<std::uintptr_t>(x) | reinterpret_cast<std::uintptr_t>(y) | static_cast<std::uintptr_t>(bytes) | 16U;
  return static_cast<std::int64_t>(all & (~all + 1));
}

// Whether W neighbouring elements of a broadcast shape, from multiples of W on, can be moved as one word in every operand: they must lie
// in one run of the innermost dimension, next to each other or all the same, and start on a word.
template <int N>
bool moves_in_packs(const StridedPlan<N>& p, int pack, std::int64_t element_size, const void* const (&data)[N]) {
  const int inner = p.rank - 1;
  bool moves = p.shape[inner] % pack == 0;
  for (int k = 0; k < N; ++k) {
    if (p.strides[k][inner] == 0) continue;
    moves = moves && p.strides[k][inner] == 1 && packs_are_aligned(data[k], 0, element_size, pack);
    for (int d = 0; d < inner; ++d) moves = moves && p.strides[k][d] * element_size % 16 == 0;
  }
  return moves;
}

// Optimizers: elements of the flat parameters that one block updates. Long enough that looking up the segment table costs nothing, short
// enough that the last round of blocks is short beside the whole.
inline constexpr std::int64_t kOptimizerChunk = 8192;
constexpr unsigned optimizer_blocks(std::int64_t extent) { return static_cast<unsigned>(ceil_div(extent, kOptimizerChunk)); }

// Column sums over many rows: rows that one block sums, a multiple of `unit` (of which the scratch memory has one part each). More where
// there are many rows, so that few parts are written; a function of the rows alone, as the bits follow from it.
constexpr std::int64_t rows_of_sum_block(std::int64_t rows, std::int64_t unit) {
  constexpr std::int64_t kEnoughBlocks = 1024;
  std::int64_t of_block = unit;
  while (of_block < 8 * unit && ceil_div(rows, of_block) > kEnoughBlocks) of_block *= 2;
  return of_block;
}

}  // namespace twinlens::cuda
