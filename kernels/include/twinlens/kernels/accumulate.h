#pragma once
// y[i] = y[i] + factor * x[i]: how gradients that meet are summed. The sum is rounded once, to the type of y.

#include "twinlens/kernels/run.h"
#include "twinlens/kernels/view.h"

namespace twinlens {

struct Accumulate {
  static constexpr const char* kName = "accumulate";
  static constexpr bool kCuda = true;
  ConstBuffer x;  // float
  Buffer y;       // float, same count
  float factor = 1.0F;
};
template <class I>
void kernel(I, const Accumulate&);
void launch(Cuda, Stream&, const Accumulate&);

}  // namespace twinlens
