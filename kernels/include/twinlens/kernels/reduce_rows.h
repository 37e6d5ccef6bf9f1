#pragma once
// y[r] = factor * sum over c of x[r, c], accumulated in f32 by lanes in a fixed order that does not depend on other rows.

#include "twinlens/kernels/run.h"
#include "twinlens/kernels/view.h"

namespace twinlens {

struct ReduceRows {
  static constexpr const char* kName = "reduce_rows";
  static constexpr bool kCuda = true;
  ConstRows x;  // (N, C) float
  Buffer y;     // (N) float
  float factor = 1.0F;
};
template <class I>
void kernel(I, const ReduceRows&);
void launch(Cuda, Stream&, const ReduceRows&);

}  // namespace twinlens
