#pragma once
// Rows scaled to unit length: y = x / max(|x|_2, eps), as torch.nn.functional.normalize. Backward:
//   dx = (dy - y * sum_k dy_k y_k) / |x|  where |x| > eps,  dx = dy / eps  elsewhere (there the divisor is a constant).
// Squares are summed in f32 as they are: |x| must stay below 1.8e19.

#include "twinlens/kernels/run.h"
#include "twinlens/kernels/view.h"

namespace twinlens {

struct L2NormalizeForward {
  static constexpr const char* kName = "l2_normalize_forward";
  static constexpr bool kCuda = true;
  ConstRows x;  // (N, C) float
  Rows y;       // (N, C), dtype of x
  float* norm;  // (N) |x| before the clamp
  float eps;
};
template <class I>
void kernel(I, const L2NormalizeForward&);
void launch(Cuda, Stream&, const L2NormalizeForward&);

struct L2NormalizeBackward {
  static constexpr const char* kName = "l2_normalize_backward";
  static constexpr bool kCuda = true;
  ConstRows y;        // (N, C) float
  ConstRows dy;       // (N, C) float
  const float* norm;  // (N)
  Rows dx;            // (N, C), dtype of y
  float eps;
};
template <class I>
void kernel(I, const L2NormalizeBackward&);
void launch(Cuda, Stream&, const L2NormalizeBackward&);

}  // namespace twinlens
