#pragma once
// copy: y[i] = x[i] for any two layouts of one shape, converting the element type. fill: y[i] = value.

#include "twinlens/kernels/run.h"
#include "twinlens/kernels/view.h"

namespace twinlens {

// Float to float, integer or bool to anything, f32 to integer by truncation. Shapes are equal; x strides may be 0.
struct Copy {
  static constexpr const char* kName = "copy";
  static constexpr bool kCuda = true;
  ConstStrided x;
  Strided y;
};
template <class I>
void kernel(I, const Copy&);
void launch(Cuda, Stream&, const Copy&);

struct Fill {
  static constexpr const char* kName = "fill";
  static constexpr bool kCuda = true;
  Buffer y;
  double value = 0.0;
};
template <class I>
void kernel(I, const Fill&);
void launch(Cuda, Stream&, const Fill&);

}  // namespace twinlens
