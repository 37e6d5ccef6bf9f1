#pragma once
// y[i] = scale * x[i] + shift.

#include "twinlens/kernels/run.h"
#include "twinlens/kernels/view.h"

namespace twinlens {

struct Affine {
  static constexpr const char* kName = "affine";
  static constexpr bool kCuda = true;
  ConstBuffer x;  // float
  Buffer y;       // same dtype and count
  float scale = 1.0F, shift = 0.0F;
};
template <class I>
void kernel(I, const Affine&);
void launch(Cuda, Stream&, const Affine&);

}  // namespace twinlens
