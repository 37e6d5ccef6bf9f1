#pragma once
// How CUDA kernels are cut into blocks: plain host functions, so that tests/kernels/cuda_geometry.cpp can check the arithmetic on a
// machine without a GPU. Nothing here includes a CUDA header.

#include <cstdint>
#include <initializer_list>

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

// Batch norm: threads (x, y) of a block take packs of 4 columns and every y-th row of a part; blocks are (parts, strips of columns). Few
// enough parts that their sums are quickly added, and never more than batch_norm_blocks() has room for.
struct ColumnLaunch {
  static constexpr int kPack = 4;
  static constexpr std::int64_t kMostParts = 1024, kLeastRows = 256;
  unsigned threads_x = 1, threads_y = 1;
  unsigned parts = 0, strips = 0;
  std::int64_t rows_per_part = 0;
};
constexpr ColumnLaunch column_launch(std::int64_t rows, std::int64_t cols) {
  if (rows <= 0 || cols <= 0) return {};
  ColumnLaunch launch;
  const std::int64_t packs = ceil_div(cols, ColumnLaunch::kPack);
  while (launch.threads_x < 64 && launch.threads_x < packs) launch.threads_x *= 2;
  launch.threads_y = 256 / launch.threads_x < 64 ? 256 / launch.threads_x : 64;
  launch.strips = static_cast<unsigned>(ceil_div(packs, launch.threads_x));
  const std::int64_t even = ceil_div(rows, ColumnLaunch::kMostParts);
  launch.rows_per_part = even > ColumnLaunch::kLeastRows ? even : ColumnLaunch::kLeastRows;
  launch.parts = static_cast<unsigned>(ceil_div(rows, launch.rows_per_part));
  return launch;
}

// Plain attention: a block of 4 warps for `rows` query (or key) rows of a head, all of whose columns it keeps in shared memory.
struct PlainAttention {
  static constexpr int kThreads = 128, kOthers = 32, kChunk = 64;  // rows and columns of a tile of what streams by
  int rows = 16;
  std::int64_t blocks_per_head = 0, blocks = 0;
  std::int64_t shared_bytes = 0;
};
// `arrays` of rows x head_dim floats, besides the tile.
constexpr PlainAttention plain_attention(std::int64_t heads, std::int64_t longest, std::int64_t head_dim, int arrays) {
  PlainAttention p;
  p.rows = head_dim <= 160 ? 16 : 4;
  p.blocks_per_head = ceil_div(longest, p.rows);
  p.blocks = heads * p.blocks_per_head;
  p.shared_bytes = 4 * (arrays * p.rows * head_dim + PlainAttention::kOthers * (PlainAttention::kChunk + 1));
  return p;
}

// Attention on tensor cores: a block for a (sequence, head). Its warps take tiles of 16 own rows (queries; or keys, for their gradients),
// one or two at a time, the other side's two matrices lie in shared memory: whole where they fit, else in chunks, and then `splits` blocks
// share the own rows.
struct TensorAttention {
  static constexpr std::int64_t kTile = 16, kMostWarps = 8;
  int tiles = 1;           // of a warp
  std::int64_t width = 0;  // head dim padded to what kernels are compiled for; 0: too wide
  unsigned warps = 1;
  std::int64_t chunk = 0;  // rows of the other side in shared memory, a multiple of 16
  std::int64_t splits = 1;
  std::int64_t shared_bytes = 0;
};
constexpr std::int64_t tensor_width(std::int64_t head_dim) {
  for (const std::int64_t width : {64, 80, 96, 112, 128}) {
    if (head_dim <= width) return width;
  }
  return 0;
}
// Bytes of one row of the other side: two matrices of two-byte elements with 8 elements of padding, so that the 8 rows that ldmatrix
// reads at once lie in different banks; and two floats.
constexpr std::int64_t tensor_row_bytes(std::int64_t width) { return 2 * 2 * (width + 8) + 2 * 4; }
// Tiles of a warp. Two share what is read from shared memory, which is slower than the products; their registers are there in heads of 64
// columns, and short sequences have not enough rows for it: there the time goes into memory anyway.
constexpr int tensor_tiles(std::int64_t typical_own, std::int64_t head_dim) { return head_dim <= 64 && typical_own > 128 ? 2 : 1; }

// The number of warps that leaves the fewest without a tile in the last round.
constexpr std::int64_t tensor_warps(std::int64_t tiles) {
  std::int64_t fewest = 0, best = 1;
  for (std::int64_t warps = tiles < 4 ? (tiles < 1 ? 1 : tiles) : 4; warps <= TensorAttention::kMostWarps; ++warps) {
    const std::int64_t slots = ceil_div(tiles, warps) * warps;
    if (fewest != 0 && slots > fewest) continue;
    fewest = slots;
    best = warps;
  }
  return best;
}
// With two tiles a warp takes up to 255 registers, and a multiprocessor has room for kMostWarps in all, in one block or several. The number
// of warps with which most tiles get done in a time there; of equals the fewest, in more blocks, of which one computes while another's rows
// come.
constexpr std::int64_t tensor_warps_of_pairs(std::int64_t tiles, std::int64_t shared_bytes, std::int64_t shared_limit) {
  constexpr std::int64_t kReserved = 1024;  // bytes that every block takes besides
  const std::int64_t fit = (shared_limit + kReserved) / (shared_bytes + kReserved), pairs = ceil_div(tiles, 2);
  std::int64_t best = 1, best_blocks = 0, best_time = 1;
  for (std::int64_t warps = 1; warps <= TensorAttention::kMostWarps; ++warps) {
    const std::int64_t most = TensorAttention::kMostWarps / warps, blocks = fit < most ? fit : most;
    // Tiles that the first warp has in turn: the last pair may be one tile.
    const std::int64_t time = 2 * ceil_div(pairs, warps) - (tiles % 2 == 1 && (pairs - 1) % warps == 0 ? 1 : 0);
    if (blocks * best_time <= best_blocks * time) continue;
    best = warps;
    best_blocks = blocks;
    best_time = time;
  }
  return best;
}
// `typical_own` is the mean length: of packed captions most are far shorter than the longest, and warps without a tile are idle. A warp has
// `tiles`.
constexpr TensorAttention tensor_attention(std::int64_t typical_own, std::int64_t longest_own, std::int64_t longest_other,
                                           std::int64_t head_dim, std::int64_t shared_limit, int tiles = 1) {
  TensorAttention t;
  t.tiles = tiles;
  t.width = tensor_width(head_dim);
  const std::int64_t all = ceil_div(longest_other, 16) * 16, row = tensor_row_bytes(t.width);
  t.chunk = all < 16 ? 16 : all;
  const bool whole = t.chunk * row <= shared_limit;
  if (!whole) {
    t.chunk = shared_limit / 2 / row / 64 * 64;  // two blocks on a multiprocessor
    if (t.chunk < 64) t.chunk = 64;
  }
  t.shared_bytes = t.chunk * row;
  const std::int64_t own = ceil_div(typical_own, TensorAttention::kTile);
  const std::int64_t warps = tiles == 1 ? tensor_warps(own) : tensor_warps_of_pairs(own, t.shared_bytes, shared_limit);
  t.warps = static_cast<unsigned>(warps);
  if (!whole) t.splits = ceil_div(ceil_div(longest_own, tiles * TensorAttention::kTile), warps);
  return t;
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
