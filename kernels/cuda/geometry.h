#pragma once
// How CUDA kernels are cut into blocks: plain host functions, so that tests/kernels/cuda_geometry.cpp can check the arithmetic on a
// machine without a GPU. Nothing here includes a CUDA header.

#include <cstdint>

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

}  // namespace twinlens::cuda
