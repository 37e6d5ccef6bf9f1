#pragma once
// Tiles of attention on tensor cores: a warp has one or two tiles of 16 own rows (queries; or keys, for their gradients) in registers, the
// rows of the other side lie in shared memory. What comes from there is the slow part, and two tiles share it.

#include <type_traits>

#include "kernels/cuda/device/attention_head.cuh"
#include "kernels/cuda/device/instructions.cuh"
#include "kernels/cuda/device/rows.cuh"

namespace twinlens::cuda::tensor {

inline constexpr unsigned kAll = 0xFFFFFFFFU;
inline constexpr float kLog2e = 1.4426950408889634F;
inline constexpr int kTile = static_cast<int>(TensorAttention::kTile);
inline constexpr int kMostThreads = static_cast<int>(TensorAttention::kMostWarps) * kWarp;
// Blocks that a multiprocessor has registers for: with one tile of 64 columns threads keep to 128, so that two blocks share it: alone, a
// block does nothing while its rows come. What is spilt by nvcc 13.0 for sm_90, bytes stored / loaded, bf16 as f16: with one such tile
// 52 / 60 forwards, 28 / 28 in the queries' gradient and 92 / 156 in the keys'; with two (up to 255 registers) 52 / 88, none and 24 / 44.
// One of 112 columns spills 4 / 4 in the keys', the others nothing.
template <int kWidth, int kTiles>
inline constexpr int kLeastBlocks = kWidth == 64 && kTiles == 1 ? 2 : 1;

__device__ inline float minus_infinity() { return -__int_as_float(0x7F800000); }
__device__ inline int least(int a, int b) { return a < b ? a : b; }
__device__ inline int most(int a, int b) { return a > b ? a : b; }

// The sum, or largest, over the four lanes that share a row of a tile.
__device__ inline float row_sum(float x) {
  x += __shfl_xor_sync(kAll, x, 1);
  return x + __shfl_xor_sync(kAll, x, 2);
}
__device__ inline float row_max(float x) {
  x = fmaxf(x, __shfl_xor_sync(kAll, x, 1));
  return fmaxf(x, __shfl_xor_sync(kAll, x, 2));
}

// 16 rows of x as the `a` of products over its columns: rows from `first` on, of which there are `count`; zeros elsewhere.
template <class T, int kWidth>
__device__ void load_own(const ConstRows& x, std::int64_t first, int count, std::int64_t column, int d, unsigned (&a)[kWidth / 16][4]) {
  const int lane = threadIdx.x % kWarp, g = lane / 4, t = lane % 4;
#pragma unroll
  for (int step = 0; step < kWidth / 16; ++step) {
#pragma unroll
    for (int part = 0; part < 4; ++part) {
      const int row = g + part % 2 * 8, col = step * 16 + part / 2 * 8;
      a[step][part] = 0;
      if (row < count && col < d) a[step][part] = *reinterpret_cast<const unsigned*>(row_of<T>(x, first + row) + column + col + 2 * t);
    }
  }
}

// The sums of 16 rows, row g times low and row g + 8 times high.
template <class T, int kWidth>
__device__ void store_own(const float (&sums)[kWidth / 8][4], float low, float high, const Rows& x, std::int64_t first, int count,
                          std::int64_t column, int d) {
  const int lane = threadIdx.x % kWarp, g = lane / 4, t = lane % 4;
#pragma unroll
  for (int n = 0; n < kWidth / 8; ++n) {
    if (n * 8 >= d) break;
    if (g < count)
      *reinterpret_cast<unsigned*>(row_of<T>(x, first + g) + column + n * 8 + 2 * t) = pack_pair<T>(sums[n][0] * low, sums[n][1] * low);
    if (g + 8 < count)
      *reinterpret_cast<unsigned*>(row_of<T>(x, first + g + 8) + column + n * 8 + 2 * t) =
          pack_pair<T>(sums[n][2] * high, sums[n][3] * high);
  }
}

// Which row and column of a tile in shared memory a lane gives to load_matrices, so that the registers it gets are what mma() wants: 0 and
// 1 are b for columns 0 to 7, 2 and 3 for columns 8 to 15.
struct TilePlace {
  int row, col;
};
// From a tile stored by rows of b's columns.
__device__ inline TilePlace place_of_columns(int lane) { return {lane % 8 + lane / 16 * 8, lane / 8 % 2 * 8}; }
// From a tile stored by rows of b's depth, turned.
__device__ inline TilePlace place_of_depths(int lane) { return {lane % 8 + lane / 8 % 2 * 8, lane / 16 * 8}; }

// A matrix of the other side in shared memory.
template <class T, int kWidth>
struct Others {
  static constexpr int kStride = kWidth + 8;
  T* data;

  // Rows [first, first + rows), of which `count` are real; rows is a multiple of 16.
  __device__ void load(const ConstRows& x, std::int64_t first, int rows, int count, std::int64_t column, int d) const {
    constexpr int kWords = kWidth / 8;
    for (int i = threadIdx.x; i < rows * kWords; i += blockDim.x) {
      const int r = i / kWords, c = i % kWords * 8;
      const bool real = r < count && c < d;
      copy_async(data + r * kStride + c, row_of<T>(x, first + (real ? r : 0)) + column + (real ? c : 0), real);
    }
  }

  // `b` of a product over columns [16 step, 16 step + 16): its 16 columns are the rows from `row` on.
  __device__ void rows(int row, int step, unsigned (&b)[4]) const {
    const TilePlace at = place_of_columns(threadIdx.x % kWarp);
    load_matrices(b, data + (row + at.row) * kStride + step * 16 + at.col);
  }
  // `b` of a product over the 16 rows from `row` on: its 16 columns are columns [16 step, 16 step + 16).
  __device__ void columns(int row, int step, unsigned (&b)[4]) const {
    const TilePlace at = place_of_depths(threadIdx.x % kWarp);
    load_matrices_turned(b, data + (row + at.row) * kStride + step * 16 + at.col);
  }
};

// Calls f(integral constant: tile) for each tile of a warp.
template <int kTiles, class F>
__device__ __forceinline__ void each_tile(F&& f) {
  static_assert(kTiles == 1 || kTiles == 2);
  f(std::integral_constant<int, 0>{});
  if constexpr (kTiles == 2) f(std::integral_constant<int, 1>{});
}

// For tiles [kFirst, kEnd): sums n and n + 1 (16 own rows, 16 rows of the other side) = own times the other's rows from `row` on.
template <class T, int kWidth, int kFirst, int kEnd, int kTiles, int kSums>
__device__ __forceinline__ void dot_tiles(const unsigned (&own)[kTiles][kWidth / 16][4], const Others<T, kWidth>& other, int row,
                                          float (&sums)[kTiles][kSums][4], int n) {
#pragma unroll
  for (int r = kFirst; r < kEnd; ++r) {
#pragma unroll
    for (int e = 0; e < 4; ++e) sums[r][n][e] = sums[r][n + 1][e] = 0.0F;
  }
#pragma unroll
  for (int step = 0; step < kWidth / 16; ++step) {
    unsigned b[4];
    other.rows(row, step, b);
#pragma unroll
    for (int r = kFirst; r < kEnd; ++r) {
      mma<T>(sums[r][n], own[r][step], b[0], b[1]);
      mma<T>(sums[r][n + 1], own[r][step], b[2], b[3]);
    }
  }
}

// For tiles [kFirst, kEnd): sums (16 own rows, columns) += weights n and n + 1 (16 own rows, 16 rows of the other side) times the other's
// rows from `row` on.
template <class T, int kWidth, int kFirst, int kEnd, int kTiles, int kWeights>
__device__ __forceinline__ void add_tiles(const float (&weights)[kTiles][kWeights][4], int n, const Others<T, kWidth>& other, int row,
                                          float (&sums)[kTiles][kWidth / 8][4]) {
  unsigned a[kTiles][4];
#pragma unroll
  for (int r = kFirst; r < kEnd; ++r) {
#pragma unroll
    for (int part = 0; part < 4; ++part) {
      const float(&pair)[4] = weights[r][n + part / 2];
      a[r][part] = pack_pair<T>(pair[part % 2 * 2], pair[part % 2 * 2 + 1]);
    }
  }
#pragma unroll
  for (int step = 0; step < kWidth / 16; ++step) {
    unsigned b[4];
    other.columns(row, step, b);
#pragma unroll
    for (int r = kFirst; r < kEnd; ++r) {
      mma<T>(sums[r][2 * step], a[r], b[0], b[1]);
      mma<T>(sums[r][2 * step + 1], a[r], b[2], b[3]);
    }
  }
}

// Which keys a query of the sequence sees.
struct Sight {
  int keys, offset;
  bool causal;
  // Keys that some of `count` queries from `query` on see.
  __device__ int seen(int query, int count) const { return count <= 0 ? 0 : causal ? most(0, least(keys, query + count + offset)) : keys; }
  // Whether some query of the tile from `query` on does not see some key of the 16 from `key` on.
  __device__ bool cuts(int query, int key) const { return key + 16 > keys || (causal && key + 15 > query + offset); }
  __device__ bool hides(int query, int key) const { return key >= keys || (causal && key > query + offset); }
};

struct Cut {
  int chunk, splits;
};

// Which own rows the warps of a block take, a round at a time; all warps of a block go through the same rounds.
template <int kTiles>
struct Rounds {
  static constexpr int kRows = kTiles * kTile;  // of a warp
  int own_rows, split, step;                    // from round to round, all blocks of a head together
  __device__ Rounds(std::int64_t own, const Cut& cut)
      : own_rows(static_cast<int>(own)),
        split(static_cast<int>(blockIdx.x % static_cast<unsigned>(cut.splits))),
        step(cut.splits * block_rows()) {}
  __device__ static int block_rows() { return static_cast<int>(blockDim.x) / kWarp * kRows; }
  // The warp's first row, which may lie behind the last, and its rows in a tile.
  __device__ int first(int round) const { return round * step + split * block_rows() + static_cast<int>(threadIdx.x) / kWarp * kRows; }
  __device__ int rows(int round, int tile) const { return most(0, least(kTile, own_rows - first(round) - tile * kTile)); }
  // Behind the last row of the block.
  __device__ int end_of_block(int round) const { return least(own_rows, round * step + (split + 1) * block_rows()); }
  __device__ int count() const {
    int n = 0;
    while (n * step + split * block_rows() < own_rows) ++n;
    return n;
  }
};

__device__ inline Head head_of_block(const AttentionProblem& p, const Cut& cut) {
  const std::int64_t item = blockIdx.x / static_cast<unsigned>(cut.splits);
  return head_of(p, item / p.heads, item % p.heads);
}

}  // namespace twinlens::cuda::tensor
