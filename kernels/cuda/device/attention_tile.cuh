#pragma once
// Tiles of attention on tensor cores: a warp has 16 own rows (queries; or keys, for their gradients) in registers, the rows of the other
// side lie in shared memory.

#include "kernels/cuda/device/attention_head.cuh"
#include "kernels/cuda/device/instructions.cuh"
#include "kernels/cuda/device/rows.cuh"

namespace twinlens::cuda::tensor {

inline constexpr unsigned kAll = 0xFFFFFFFFU;
inline constexpr float kLog2e = 1.4426950408889634F;
inline constexpr int kTile = static_cast<int>(TensorAttention::kTile);
inline constexpr int kMostThreads = static_cast<int>(TensorAttention::kMostWarps) * kWarp;

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

// sums (16 own rows, 16 rows of the other side) = own times the other's rows.
template <class T, int kWidth>
__device__ void dot_tile(const unsigned (&own)[kWidth / 16][4], const Others<T, kWidth>& other, int row, float (&low)[4],
                         float (&high)[4]) {
#pragma unroll
  for (int step = 0; step < kWidth / 16; ++step) {
    unsigned b[4];
    other.rows(row, step, b);
    mma<T>(low, own[step], b[0], b[1]);
    mma<T>(high, own[step], b[2], b[3]);
  }
}

// sums (16 own rows, columns) += weights (16 own rows, 16 rows of the other side) times these rows.
template <class T, int kWidth>
__device__ void add_tile(const float (&low)[4], const float (&high)[4], const Others<T, kWidth>& other, int row,
                         float (&sums)[kWidth / 8][4]) {
  const unsigned weights[4] = {pack_pair<T>(low[0], low[1]), pack_pair<T>(low[2], low[3]), pack_pair<T>(high[0], high[1]),
                               pack_pair<T>(high[2], high[3])};
#pragma unroll
  for (int step = 0; step < kWidth / 16; ++step) {
    unsigned b[4];
    other.columns(row, step, b);
    mma<T>(sums[2 * step], weights, b[0], b[1]);
    mma<T>(sums[2 * step + 1], weights, b[2], b[3]);
  }
}

struct Cut {
  int chunk;
  std::int64_t splits;
};

// Which own tiles the warps of a block take, a round at a time; all warps of a block go through the same rounds.
struct Rounds {
  std::int64_t split, splits;
  int warps, warp, tiles;
  __device__ Rounds(std::int64_t own_rows, const Cut& cut)
      : split(blockIdx.x % cut.splits),
        splits(cut.splits),
        warps(static_cast<int>(blockDim.x) / kWarp),
        warp(static_cast<int>(threadIdx.x) / kWarp),
        tiles(static_cast<int>((own_rows + kTile - 1) / kTile)) {}
  __device__ int first(std::int64_t round) const { return static_cast<int>((round * splits + split) * warps); }  // tile of warp 0
  __device__ int count() const {
    std::int64_t n = 0;
    while (first(n) < tiles) ++n;
    return static_cast<int>(n);
  }
};

__device__ inline Head head_of_block(const AttentionProblem& p, const Cut& cut, std::int64_t& head) {
  const std::int64_t item = blockIdx.x / cut.splits;
  head = item % p.heads;
  return head_of(p, item / p.heads, head);
}

}  // namespace twinlens::cuda::tensor
