#pragma once
// The two numbers of a row that softmax, log-softmax and cross-entropy are made of: the maximum and the sum over the other columns of
// exp(x - maximum). Kept apart from the 1 of the maximum itself, the sum loses nothing when one column dominates:
//   p_j = exp(x_j - max) / (1 + others),  log-sum-exp = max + log1p(others),  1 - p_max = others / (1 + others).
// A row with NaN, with +inf, or of -inf only gives NaN everywhere, as in PyTorch: `others` is NaN then.

#include "kernels/cpu/vec/math.h"

namespace twinlens {

struct SoftmaxRow {
  float max;
  float others;
};

inline constexpr float kMinusInfinity = -__builtin_inff();

template <class I, class T>
TWINLENS_INLINE float row_max(const T* x, std::int64_t c) {
  return max_lanes<I>(c, [&](std::int64_t i, std::int64_t n) { return load_lanes<I>(x + i, n, kMinusInfinity); }).max();
}

// Calls pass(column) on the way, for each register.
template <class I, class T, class Pass>
TWINLENS_INLINE SoftmaxRow softmax_row(const T* x, std::int64_t c, Pass&& pass) {
  using V = Vec<I>;
  const V max(row_max<I>(x, c));
  // Blocks are summed by lanes, blocks in order: the error grows with the number of blocks, not of columns.
  constexpr std::int64_t kBlock = 4096;
  float others = -1.0F;  // one of the columns that hold the maximum is left out
  float rest = 0.0F;
  for (std::int64_t begin = 0; begin < c; begin += kBlock) {
    V maxima(0.0F), sum(0.0F);
    for_lanes<I>(c - begin < kBlock ? c - begin : kBlock, [&](std::int64_t i, std::int64_t n) {
      const V v = load_lanes<I>(x + begin + i, n, kMinusInfinity);
      const V e = Math<I>::exp_nonpositive(v - max);
      const auto at_max = v.raw == max.raw;
      maxima = V::select(at_max, maxima + V(1.0F), maxima);
      sum = V::select(at_max, sum, sum + e);
      pass(begin + i);
    });
    others += maxima.sum();
    rest += sum.sum();
  }
  return {max.raw[0], others + rest + (max.raw[0] - max.raw[0])};
}
template <class I, class T>
TWINLENS_INLINE SoftmaxRow softmax_row(const T* x, std::int64_t c) {
  return softmax_row<I>(x, c, [](std::int64_t) {});
}

template <class I>
TWINLENS_INLINE float log1p_of(float x) {
  return Math<I>::log1p(Vec<I>(x)).raw[0];
}

}  // namespace twinlens
