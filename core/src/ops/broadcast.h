#pragma once
// Broadcast operands for kernels. Private to core.

#include "twinlens/core/tensor.h"

namespace twinlens {

// x seen with a larger shape, strides 0 where it is repeated. Not recorded.
inline ConstStrided broadcast_view(const Tensor& x, const Shape& shape) {
  ConstStrided view;
  view.data = x.raw();
  view.dtype = x.dtype();
  view.rank = shape.rank();
  for (int d = 1; d <= shape.rank(); ++d) {
    const int at = shape.rank() - d;
    view.shape[at] = shape[-d];
    view.strides[at] = d > x.rank() || (x.size(-d) == 1 && shape[-d] != 1) ? 0 : x.strides()[-d];
  }
  return view;
}

}  // namespace twinlens
