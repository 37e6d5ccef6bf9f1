#pragma once
// A convolution's products on tensor cores, with windows read where they lie (Chetlur et al. 2014, "cuDNN", arXiv:1410.0759, section 3.1:
// the matrix of windows exists in shared memory only, a tile at a time). Tiles of both operands are copied in the background, kStages - 1
// of them ahead of what is multiplied. Factors have two bytes, sums are f32.

#include "kernels/cuda/device/element.cuh"
#include "kernels/cuda/device/instructions.cuh"
#include "kernels/cuda/window_plan.h"

namespace twinlens::cuda::windows {

inline constexpr int kDepth = WindowLaunch::kDepth, kStages = WindowLaunch::kStages, kThreads = WindowLaunch::kThreads;
inline constexpr int kWord = 8;  // elements of a copy

// A stored matrix of which a thread visits one word after the other: rows as they lie, ...
struct StoredRows {
  const void* data;
  std::int64_t stride, rows, cols;
};
template <class T>
class RowsWalk {
 public:
  using Matrix = StoredRows;
  RowsWalk() = default;
  __device__ RowsWalk(const StoredRows& m, std::int64_t row, std::int64_t col)
      : rows_left_(static_cast<int>(m.rows - row)), cols_left_(static_cast<int>(m.cols - col)), offset_(row * m.stride + col) {}
  __device__ void down(const StoredRows& m) {
    rows_left_ -= kDepth;
    offset_ += kDepth * m.stride;
  }
  __device__ void along(const StoredRows&) {
    cols_left_ -= kDepth;
    offset_ += kDepth;
  }
  // Null behind the last row or column.
  __device__ const T* at(const StoredRows& m) const {
    return rows_left_ > 0 && cols_left_ > 0 ? static_cast<const T*>(m.data) + offset_ : nullptr;
  }

 private:
  int rows_left_, cols_left_;
  std::int64_t offset_;
};

// ... or windows: rows are output pixels, columns (kernel row, kernel column, channel). A word lies within the channels of one pixel. The
// numbers of a ConvGeometry, in registers of 32 bits: where a word lies is worked out anew for each pixel, between the products.
struct Map {
  const void* data;
  int batch, height, width, channels, out_height, out_width, kernel_height, kernel_width, stride, padding, dilation;
};
inline Map map_of(const void* data, const ConvGeometry& g) {
  const auto narrow = [](std::int64_t n) { return static_cast<int>(n); };
  return {data,
          narrow(g.batch),
          narrow(g.height),
          narrow(g.width),
          narrow(g.channels),
          narrow(g.out_height),
          narrow(g.out_width),
          narrow(g.kernel_height),
          narrow(g.kernel_width),
          narrow(g.stride),
          narrow(g.padding),
          narrow(g.dilation)};
}
template <class T>
class WindowWalk {
 public:
  using Matrix = Map;
  WindowWalk() = default;
  __device__ WindowWalk(const Map& m, std::int64_t row, std::int64_t col) {
    const std::int64_t line = row / m.out_width;
    const int column = static_cast<int>(col), tap = column / m.channels;
    w_ = static_cast<int>(row - line * m.out_width);
    b_ = static_cast<int>(line / m.out_height);
    h_ = static_cast<int>(line - std::int64_t{b_} * m.out_height);
    channel_ = column - tap * m.channels;
    tap_row_ = tap / m.kernel_width;
    tap_col_ = tap - tap_row_ * m.kernel_width;
    find(m);
  }
  __device__ void down(const Map& m) {
    for (w_ += kDepth; w_ >= m.out_width;) {
      w_ -= m.out_width;
      if (++h_ < m.out_height) continue;
      h_ = 0;
      ++b_;
    }
    find(m);
  }
  // Within the channels of a pixel a word is as far from the last as the depths are.
  __device__ void along(const Map& m) {
    channel_ += kDepth;
    if (channel_ < m.channels) {
      if (now_ != nullptr) now_ += kDepth;
      return;
    }
    while (channel_ >= m.channels) {
      channel_ -= m.channels;
      if (++tap_col_ < m.kernel_width) continue;
      tap_col_ = 0;
      ++tap_row_;
    }
    find(m);
  }
  // Null behind the last pixel or column, and where the window sees what is beside the picture.
  __device__ const T* at(const Map&) const { return now_; }

 private:
  __device__ void find(const Map& m) {
    const int h = h_ * m.stride - m.padding + tap_row_ * m.dilation, w = w_ * m.stride - m.padding + tap_col_ * m.dilation;
    now_ = nullptr;
    if (b_ >= m.batch || tap_row_ >= m.kernel_height || h < 0 || h >= m.height || w < 0 || w >= m.width) return;
    now_ = static_cast<const T*>(m.data) + (std::int64_t{b_ * m.height + h} * m.width + w) * m.channels + channel_;
  }

  int b_, h_, w_, tap_row_, tap_col_, channel_;
  const T* now_;
};

// What a thread copies of an operand, kDepth depths at a time: kLines rows (of a) or columns (of b) of the product. With kTurned the depth
// runs along stored rows.
template <class T, class Walk, int kLines, bool kTurned>
class Tile {
 public:
  static constexpr int kRows = kTurned ? kDepth : kLines, kCols = kTurned ? kLines : kDepth, kStride = kCols + 8;
  static constexpr int kElements = kRows * kStride;

  __device__ Tile(const typename Walk::Matrix& m, std::int64_t line, std::int64_t depth) {
#pragma unroll
    for (int i = 0; i < kCopies; ++i) {
      const int row = first_row() + i * kRowsApart, col = column();
      walks_[i] = kTurned ? Walk(m, depth + row, line + col) : Walk(m, line + row, depth + col);
    }
  }

  // The next tile.
  __device__ void load(const typename Walk::Matrix& m, T* to) {
#pragma unroll
    for (int i = 0; i < kCopies; ++i) {
      const int row = first_row() + i * kRowsApart;
      const T* from = walks_[i].at(m);
      if (kRows % kRowsApart == 0 || row < kRows)
        copy_async(to + row * kStride + column(), from != nullptr ? from : static_cast<const T*>(m.data), from != nullptr);
      if (kTurned) {
        walks_[i].down(m);
      } else {
        walks_[i].along(m);
      }
    }
  }

  // `a` of a product: 16 lines from `line` on, 16 depths from `depth` on.
  __device__ static void left(const T* tile, int line, int depth, unsigned (&a)[4]) {
    const int lane = threadIdx.x % kWarp, part = lane / 8, i = lane % 8;
    if constexpr (kTurned) {
      load_matrices_turned(a, tile + (depth + i + part / 2 * 8) * kStride + line + part % 2 * 8);
    } else {
      load_matrices(a, tile + (line + i + part % 2 * 8) * kStride + depth + part / 2 * 8);
    }
  }
  // `b` of two products: 0 and 1 are those of 8 lines from `line` on, 2 and 3 those of the 8 behind.
  __device__ static void right(const T* tile, int line, int depth, unsigned (&b)[4]) {
    const int lane = threadIdx.x % kWarp, part = lane / 8, i = lane % 8;
    if constexpr (kTurned) {
      load_matrices_turned(b, tile + (depth + i + part % 2 * 8) * kStride + line + part / 2 * 8);
    } else {
      load_matrices(b, tile + (line + i + part / 2 * 8) * kStride + depth + part % 2 * 8);
    }
  }

 private:
  static constexpr int kWordsPerRow = kCols / kWord, kRowsApart = kThreads / kWordsPerRow;
  static constexpr int kCopies = (kRows + kRowsApart - 1) / kRowsApart;
  __device__ static int first_row() { return static_cast<int>(threadIdx.x) / kWordsPerRow; }
  __device__ static int column() { return static_cast<int>(threadIdx.x) % kWordsPerRow * kWord; }
  Walk walks_[kCopies];
};

// Four lanes that have four words each turn them: word i of lane t becomes word t of lane i.
__device__ inline void turn_words(unsigned (&w)[4]) {
  const unsigned lane = threadIdx.x;
#pragma unroll
  for (int step = 1; step <= 2; step *= 2) {
    const bool upper = (lane & static_cast<unsigned>(step)) != 0;
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      if ((i & step) != 0) continue;
      const unsigned received = __shfl_xor_sync(0xFFFFFFFFU, upper ? w[i] : w[i + step], step);
      if (upper) {
        w[i] = received;
      } else {
        w[i + step] = received;
      }
    }
  }
}

// Where sums go: c, in f32 or T, or a part's own dense f32.
struct Result {
  void* data;
  DType dtype;
  std::int64_t rows, cols, stride;
  bool aligned;
};

// 32 columns of row `row`, of which this lane has columns 2 t, 2 t + 1 of every 8; all four lanes of the row come here.
template <class T>
__device__ void store_row(const float (&sums)[4][4], int half, const Result& c, std::int64_t row, std::int64_t col) {
  const int t = threadIdx.x % 4;
  if (c.dtype == DType::f32) {
#pragma unroll
    for (int n = 0; n < 4; ++n) {
      const std::int64_t at = col + n * 8 + 2 * t;
      const float pair[2] = {sums[n][2 * half], sums[n][2 * half + 1]};
      if (row < c.rows) store_pack(pair, static_cast<float*>(c.data) + row * c.stride + at, c.cols - at, c.aligned);
    }
    return;
  }
  unsigned words[4];
#pragma unroll
  for (int n = 0; n < 4; ++n) words[n] = pack_pair<T>(sums[n][2 * half], sums[n][2 * half + 1]);
  turn_words(words);
  const std::int64_t at = col + t * 8;
  if (row >= c.rows || at >= c.cols) return;
  T* const to = static_cast<T*>(c.data) + row * c.stride + at;
  if (c.aligned && at + 8 <= c.cols) {
    store_word(reinterpret_cast<uint4*>(to), uint4{words[0], words[1], words[2], words[3]});
    return;
  }
#pragma unroll
  for (int k = 0; k < 8; ++k) {
    if (at + k < c.cols) to[k] = T{static_cast<std::uint16_t>(words[k / 2] >> (k % 2 * 16))};
  }
}

struct Cut {
  std::int64_t tiles_across, tiles, steps, steps_per_part;
};

// a and b are `Matrix` of their walks. Parts, where there are several, follow each other in c.
template <class T, class WalkA, class WalkB, int kRows, int kCols, bool kTurned>
__global__ void __launch_bounds__(kThreads, 2)
    product_kernel(typename WalkA::Matrix a, typename WalkB::Matrix b, Result c, std::int64_t part_size, Cut cut) {
  extern __shared__ __align__(16) unsigned char shared[];
  using A = Tile<T, WalkA, kRows, kTurned>;
  using B = Tile<T, WalkB, kCols, kTurned>;
  constexpr int kAcross = kCols / WindowLaunch::kWarpCols, kDown = kThreads / kWarp / kAcross;  // warps
  constexpr int kWarpRows = kRows / kDown, kHigh = kWarpRows / 16;
  static_assert(kHigh * 16 * kDown == kRows);
  const std::int64_t part = blockIdx.x / cut.tiles, tile = blockIdx.x % cut.tiles;
  const std::int64_t row = tile / cut.tiles_across * kRows, col = tile % cut.tiles_across * kCols;
  const std::int64_t first_step = part * cut.steps_per_part;
  const auto steps = static_cast<int>(cut.steps - first_step < cut.steps_per_part ? cut.steps - first_step : cut.steps_per_part);
  const int warp = static_cast<int>(threadIdx.x) / kWarp, lane = static_cast<int>(threadIdx.x) % kWarp;
  const int warp_row = warp / kAcross * kWarpRows, warp_col = warp % kAcross * WindowLaunch::kWarpCols;
  A left(a, row, first_step * kDepth);
  B right(b, col, first_step * kDepth);
  T* const stages = reinterpret_cast<T*>(shared);
  const auto load = [&](int step) {
    T* const to = stages + step % kStages * (A::kElements + B::kElements);
    left.load(a, to);
    right.load(b, to + A::kElements);
  };
  float sums[kHigh][4][4] = {};
  for (int step = 0; step < kStages - 1; ++step) {
    if (step < steps) load(step);
    end_group_of_copies();
  }
  for (int step = 0; step < steps; ++step) {
    wait_for_groups_but<kStages - 2>();
    __syncthreads();  // this step's tiles are there, and the last one's are no longer read
    if (step + kStages - 1 < steps) load(step + kStages - 1);
    end_group_of_copies();
    const T *const of_a = stages + step % kStages * (A::kElements + B::kElements), *const of_b = of_a + A::kElements;
#pragma unroll
    for (int depth = 0; depth < kDepth; depth += 16) {
      unsigned x[kHigh][4], y[2][4];
#pragma unroll
      for (int i = 0; i < kHigh; ++i) A::left(of_a, warp_row + 16 * i, depth, x[i]);
#pragma unroll
      for (int j = 0; j < 2; ++j) B::right(of_b, warp_col + 16 * j, depth, y[j]);
#pragma unroll
      for (int i = 0; i < kHigh; ++i) {
#pragma unroll
        for (int n = 0; n < 4; ++n) mma<T>(sums[i][n], x[i], y[n / 2][n % 2 * 2], y[n / 2][n % 2 * 2 + 1]);
      }
    }
  }
  c.data = static_cast<char*>(c.data) + part * part_size;
#pragma unroll
  for (int i = 0; i < kHigh; ++i) {
#pragma unroll
    for (int half = 0; half < 2; ++half) store_row<T>(sums[i], half, c, row + warp_row + 16 * i + 8 * half + lane / 4, col + warp_col);
  }
}

}  // namespace twinlens::cuda::windows
