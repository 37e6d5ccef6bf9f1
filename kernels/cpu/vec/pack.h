#pragma once
// Strided rows of any float type to dense f32 scratch and back: what small products read and write.

#include "kernels/cpu/vec/past_caches.h"
#include "kernels/cpu/vec/transpose.h"
#include "kernels/cpu/vec/vec.h"

#include "twinlens/kernels/view.h"

namespace twinlens {

// n rounded up to whole registers.
template <class I>
TWINLENS_INLINE std::int64_t whole_registers(std::int64_t n) {
  return (n + I::kWidth - 1) / I::kWidth * I::kWidth;
}

// out[r][c] = x[begin + r][column + c], f32, c < d and 0 up to whole registers.
template <class I>
void pack_rows(const ConstRows& x, std::int64_t begin, std::int64_t rows, std::int64_t column, std::int64_t d, float* out,
               std::int64_t stride) {
  visit_float(x.dtype, [&]<class T>(TypeTag<T>) {
    for (std::int64_t r = 0; r < rows; ++r) {
      const T* from = x.row<T>(begin + r) + column;
      for_lanes<I>(d, [&](std::int64_t c, std::int64_t n) { load_lanes<I>(from + c, n).store(out + r * stride + c); });
    }
  });
}

// out[c][r] = factor * in[r][c], c < columns (whole registers), r < rows and 0 up to whole registers.
template <class I>
void turn_rows(const float* in, std::int64_t in_stride, std::int64_t rows, std::int64_t columns, float factor, float* out,
               std::int64_t out_stride) {
  using V = Vec<I>;
  constexpr std::int64_t w = V::kWidth;
  for (std::int64_t r = 0; r < rows; r += w) {
    for (std::int64_t c = 0; c < columns; c += w) {
      V square[w];
      for (std::int64_t i = 0; i < w; ++i) square[i] = r + i < rows ? V::load(in + (r + i) * in_stride + c) * V(factor) : V(0.0F);
      transpose_square<I>(square);
      for (std::int64_t i = 0; i < w; ++i) square[i].store(out + (c + i) * out_stride + r);
    }
  }
}

// x[begin + r][column + c] = from[r][c] * (factor ? factor[r] : 1)
template <class I>
void unpack_rows(const float* from, std::int64_t stride, const float* factor, RowOutput out, const Rows& x, std::int64_t begin,
                 std::int64_t rows, std::int64_t column, std::int64_t d) {
  visit_float(x.dtype, [&]<class T>(TypeTag<T>) {
    for (std::int64_t r = 0; r < rows; ++r) {
      const Vec<I> f(factor != nullptr ? factor[r] : 1.0F);
      T* to = x.row<T>(begin + r) + column;
      for_lanes<I>(d, [&](std::int64_t c, std::int64_t n) { out.store<I>(Vec<I>::load(from + r * stride + c) * f, to + c, n); });
    }
  });
}

}  // namespace twinlens
