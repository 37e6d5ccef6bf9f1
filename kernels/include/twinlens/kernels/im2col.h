#pragma once
// Convolutions as matrix products over NHWC maps. Im2Col: row (b, h', w') of the result holds the window that output pixel sees, in the
// order (kernel row, kernel column, channel), zeros outside of the picture. Col2Im is its transpose: every input pixel gathers its share
// from all windows that saw it, in a fixed order, so nothing is added concurrently.

#include "twinlens/kernels/conv_geometry.h"
#include "twinlens/kernels/run.h"
#include "twinlens/kernels/view.h"

namespace twinlens {

struct Im2Col {
  static constexpr const char* kName = "im2col";
  static constexpr bool kCuda = true;
  ConvGeometry g;
  ConstBuffer x;  // (B, H, W, C) dense
  Buffer y;       // (B H' W', kh kw C), the same dtype
};
template <class I>
void kernel(I, const Im2Col&);
void launch(Cuda, Stream&, const Im2Col&);

struct Col2Im {
  static constexpr const char* kName = "col2im";
  static constexpr bool kCuda = true;
  ConvGeometry g;
  ConstBuffer dy;  // (B H' W', kh kw C)
  Buffer dx;       // (B, H, W, C)
};
template <class I>
void kernel(I, const Col2Im&);
void launch(Cuda, Stream&, const Col2Im&);

}  // namespace twinlens
