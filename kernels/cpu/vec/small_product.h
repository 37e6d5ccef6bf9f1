#pragma once
// Products of matrices that fit in cache, from packed f32 scratch: attention heads, tiles of a loss. The general matmul pays for packing
// and for edges there.
//
//   C[m][n] (+)= sum over k of A(m, k) * B[k][n]
//
// A is read one element at a time (broadcast), so any pair of strides serves and a transposed A costs nothing. Rows of B and C are dense
// and padded to whole registers. k runs upwards for every element, one multiply-add at a time, so the bits of an element do not depend on
// the blocking.

#include "kernels/cpu/vec/prefetch.h"
#include "kernels/cpu/vec/vec.h"

namespace twinlens {

template <class I>
struct SmallProduct {
  using V = Vec<I>;
  using Raw = typename V::Raw;
  static constexpr std::int64_t kWidth = V::kWidth;
  // Register block: kRows x kColumns registers of accumulators; 32 registers where the set has them, else 16.
  static constexpr int kRows = 6;
  static constexpr int kColumns = V::kWidth == 16 ? 4 : 2;

  struct Args {
    std::int64_t rows, columns, depth;  // columns: a multiple of kWidth
    const float* a;
    std::int64_t a_row, a_depth;  // strides of A along m and k
    const float* b;
    std::int64_t b_stride;
    float* c;
    std::int64_t c_stride;
    bool accumulate;
    Prefetch* ahead = nullptr;  // a tick every kAhead depths while there is more
  };
  // A few rows at a time: a burst of more lines than there are buffers for them would stop the multiply-adds until memory answers.
  static constexpr std::int64_t kAhead = 16;
  // About the ticks in products of so many multiply-adds.
  TWINLENS_INLINE static std::int64_t ticks_of(std::int64_t multiply_adds) { return multiply_adds / (kRows * kColumns * kWidth * kAhead); }

  template <int M, int N>
  TWINLENS_INLINE static void block(const Args& p, const float* a, const float* b, float* c) {
    Raw sum[M][N];
    for (int m = 0; m < M; ++m) {
      for (int n = 0; n < N; ++n) sum[m][n] = p.accumulate ? V::load(c + m * p.c_stride + n * kWidth).raw : Raw{};
    }
    const auto depths = [&](std::int64_t count) __attribute__((always_inline)) {
      for (std::int64_t k = 0; k < count; ++k) {
        Raw right[N];
        for (int n = 0; n < N; ++n) right[n] = V::load(b + n * kWidth).raw;
        for (int m = 0; m < M; ++m) {
          const Raw left = V(a[m * p.a_row]).raw;
          for (int n = 0; n < N; ++n) sum[m][n] = left * right[n] + sum[m][n];
        }
        a += p.a_depth;
        b += p.b_stride;
      }
    };
    std::int64_t rest = p.depth;
    if (p.ahead != nullptr) {
      for (; rest >= kAhead && p.ahead->more(); rest -= kAhead) {
        p.ahead->tick();
        depths(kAhead);
      }
    }
    depths(rest);
    for (int m = 0; m < M; ++m) {
      for (int n = 0; n < N; ++n) V(sum[m][n]).store(c + m * p.c_stride + n * kWidth);
    }
  }

  template <int N>
  static void column_strip(const Args& p, std::int64_t column) {
    std::int64_t m = 0;
    const float* b = p.b + column;
    float* c = p.c + column;
    for (; m + kRows <= p.rows; m += kRows) block<kRows, N>(p, p.a + m * p.a_row, b, c + m * p.c_stride);
    const float* a = p.a + m * p.a_row;
    c += m * p.c_stride;
    switch (p.rows - m) {
      case 5: return block<5, N>(p, a, b, c);
      case 4: return block<4, N>(p, a, b, c);
      case 3: return block<3, N>(p, a, b, c);
      case 2: return block<2, N>(p, a, b, c);
      case 1: return block<1, N>(p, a, b, c);
      default: return;
    }
  }

  // So much of a strip of B stays in L1 while the rows of A pass by: deeper ones are taken in pieces.
  static constexpr std::int64_t kFloatsOfB = 6 << 10;

  static void run(const Args& p) {
    const std::int64_t strip = p.columns < kColumns * kWidth ? p.columns : kColumns * kWidth;
    const std::int64_t pieces = p.rows > kRows ? (p.depth * strip + kFloatsOfB - 1) / kFloatsOfB : 1;
    const std::int64_t piece = pieces > 1 ? (p.depth + pieces - 1) / pieces : p.depth;
    Args part = p;
    for (std::int64_t k = 0; k < p.depth || k == 0; k += piece) {
      part.depth = p.depth - k < piece ? p.depth - k : piece;
      run_piece(part);
      part.a += part.depth * p.a_depth;
      part.b += part.depth * p.b_stride;
      part.accumulate = true;
      if (piece == 0) break;
    }
  }

  // Strips of nearly equal width: five registers are 3 + 2, not 4 + 1.
  static void run_piece(const Args& p) {
    std::int64_t left = p.columns / kWidth;
    for (std::int64_t column = 0; left > 0;) {
      const std::int64_t strips = (left + kColumns - 1) / kColumns;
      const std::int64_t n = (left + strips - 1) / strips;
      if constexpr (kColumns >= 4) {
        if (n == 4) column_strip<4>(p, column);
        if (n == 3) column_strip<3>(p, column);
      }
      if (n == 2) column_strip<2>(p, column);
      if (n == 1) column_strip<1>(p, column);
      column += n * kWidth;
      left -= n;
    }
  }
};

}  // namespace twinlens
