#pragma once
// Softmax and log-softmax over the last dimension:
//   softmax      y_j = exp(x_j - max) / sum_k exp(x_k - max),  dx = y * (dy - sum_k dy_k y_k)
//   log-softmax  y_j = x_j - max - log sum_k exp(x_k - max),   dx = dy - exp(y) * sum_k dy_k
// The sum is accumulated without the maximum's own 1 and its logarithm taken by log1p, so the log-probability of a column that dominates
// keeps its relative accuracy.

#include "twinlens/kernels/run.h"
#include "twinlens/kernels/view.h"

namespace twinlens {

struct SoftmaxForward {
  static constexpr const char* kName = "softmax_forward";
  static constexpr bool kCuda = true;
  static constexpr UsesBf16 kBf16 = UsesBf16::rounding;
  ConstRows x;  // (N, C) float
  Rows y;       // (N, C), dtype of x
  bool log;     // log-softmax
};
template <class I>
void kernel(I, const SoftmaxForward&);
void launch(Cuda, Stream&, const SoftmaxForward&);

struct SoftmaxBackward {
  static constexpr const char* kName = "softmax_backward";
  static constexpr bool kCuda = true;
  static constexpr UsesBf16 kBf16 = UsesBf16::rounding;
  ConstRows y;   // (N, C) float
  ConstRows dy;  // (N, C) float
  Rows dx;       // (N, C), dtype of y
  bool log;
};
template <class I>
void kernel(I, const SoftmaxBackward&);
void launch(Cuda, Stream&, const SoftmaxBackward&);

}  // namespace twinlens
