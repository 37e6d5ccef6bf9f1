#pragma once
// Softsign (Bergstra et al. 2009): y = x / (1 + |x|), elementwise.
// Backward: dx = dy / (1 + |x|)^2.

#include "twinlens/kernels/run.h"
#include "twinlens/kernels/view.h"

namespace twinlens {

struct SoftsignForward {
  static constexpr const char* kName = "softsign_forward";
  static constexpr bool kCuda = true;
  ConstBuffer x;  // float
  Buffer y;       // dtype and count of x
};
template <class I>
void kernel(I, const SoftsignForward&);
void launch(Cuda, Stream&, const SoftsignForward&);

struct SoftsignBackward {
  static constexpr const char* kName = "softsign_backward";
  static constexpr bool kCuda = true;
  ConstBuffer x, dy;  // floats of one count
  Buffer dx;          // dtype and count of x
};
template <class I>
void kernel(I, const SoftsignBackward&);
void launch(Cuda, Stream&, const SoftsignBackward&);

}  // namespace twinlens
