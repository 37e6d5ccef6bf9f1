#pragma once
// Which pixels a convolution's windows see. The matrix of windows of an NHWC map (B, H, W, C) has a row for every output pixel (b, h', w')
// and the columns (kernel row, kernel column, channel): the pixel at (stride h' - padding + dilation kernel row, ...), zero outside of
// the picture. A convolution is that matrix times the weight.

#include <cstdint>

namespace twinlens {

struct ConvGeometry {
  std::int64_t batch = 0, height = 0, width = 0, channels = 0;  // of the map
  std::int64_t out_height = 0, out_width = 0;
  std::int64_t kernel_height = 0, kernel_width = 0;
  std::int64_t stride = 1, padding = 0, dilation = 1;
};

}  // namespace twinlens
