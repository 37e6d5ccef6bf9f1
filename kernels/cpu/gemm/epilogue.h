#pragma once
// What happens to a tile of sums on its way from the registers to c, while it is in L1.

#include "kernels/cpu/vec/activation.h"

#include "twinlens/kernels/matmul.h"

namespace twinlens::gemm {

// A tile in f32, `width` floats to a row, of which rows x cols are part of c, at (row, col).
struct TileOfC {
  float* sums;
  std::int64_t width, row, col, rows, cols;
};

// Calls f(pointer into the tile, pointer into x, lanes) along the rows of the tile.
template <class I, class T, class F>
TWINLENS_INLINE void along_tile(const TileOfC& t, T* x, std::int64_t stride, F&& f) {
  for (std::int64_t i = 0; i < t.rows; ++i) {
    float* sums = t.sums + i * t.width;
    T* row = x + (t.row + i) * stride + t.col;
    for_lanes<I>(t.cols, [&](std::int64_t j, std::int64_t n) { f(sums + j, row + j, n); });
  }
}

template <class I>
void store_tile(const TileOfC& t, const Rows& x) {
  visit_float(x.dtype, [&]<class T>(TypeTag<T>) {
    for (std::int64_t i = 0; i < t.rows; ++i) store_run<I>(t.sums + i * t.width, x.row<T>(t.row + i) + t.col, t.cols);
  });
}

// tile += x; Rows or ConstRows
template <class I, class R>
void add_to_tile(const TileOfC& t, const R& x) {
  visit_float(x.dtype, [&]<class T>(TypeTag<T>) {
    along_tile<I>(t, x.template row<T>(0), x.stride, [](float* sums, const T* from, std::int64_t n) {
      store_lanes<I>(load_lanes<I>(sums, n) + load_lanes<I>(from, n), sums, n);
    });
  });
}

template <class I>
void scale_tile(const TileOfC& t, float factor) {
  if (factor == 1.0F) return;
  for (std::int64_t i = 0; i < t.rows * t.width; i += Vec<I>::kWidth) (Vec<I>::load(t.sums + i) * Vec<I>(factor)).store(t.sums + i);
}

template <class I>
void activate_tile(const TileOfC& t, Activation activation, DType stored_as) {
  visit_float(stored_as, [&]<class T>(TypeTag<T>) {
    along_registers<I, T>(activation, t.rows * t.width, [&]<class S, class F>(TypeTag<S>, TypeTag<F>, std::int64_t i) {
      F::value(Vec<S>::load(t.sums + i)).store(t.sums + i);
    });
  });
}

// True only where all sums are finite. Reads whole registers of whole tiles: rows behind the last one, too.
template <class I>
bool all_finite(const TileOfC& t) {
  using V = Vec<I>;
  constexpr int chains = 8;
  V zero[chains];  // NaN once it has met one, or an infinity
  for (V& z : zero) z = V(0.0F);
  for (std::int64_t i = 0; i < t.rows * t.width; i += chains * V::kWidth) {
#pragma GCC unroll 8
    for (int j = 0; j < chains; ++j) zero[j] = V::fma(V::load(t.sums + i + j * V::kWidth), V(0.0F), zero[j]);
  }
  for (int n = chains / 2; n > 0; n /= 2) {
    for (int j = 0; j < n; ++j) zero[j] = zero[j] + zero[j + n];
  }
  return zero[0].sum() == 0.0F;
}

// The last step of a tile whose sums are complete.
template <class I>
void finish_tile(const Matmul& m, const Rows& c, const TileOfC& t) {
  scale_tile<I>(t, m.alpha);
  if (m.bias != nullptr) {
    along_tile<I>(t, m.bias, 0, [](float* sums, const float* bias, std::int64_t n) {
      store_lanes<I>(load_lanes<I>(sums, n) + load_lanes<I>(bias, n), sums, n);
    });
  }
  if (m.pre.data != nullptr) store_tile<I>(t, m.pre);
  if (m.activation != Activation::none) activate_tile<I>(t, m.activation, c.dtype);
  if (m.residual.data != nullptr) add_to_tile<I>(t, m.residual);
  store_tile<I>(t, c);
}

}  // namespace twinlens::gemm
