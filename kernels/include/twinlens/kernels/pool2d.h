#pragma once
// Pooling of NHWC feature maps. Output (oy, ox) sees the inputs (y, x) with y = oy * stride - padding + i, x = ox * stride - padding + j,
// 0 <= i, j < kernel, that lie inside the map:
//   average: y = sum x / kernel^2 (no padding);  dx[y, x] = sum of dy / kernel^2 over the windows that see (y, x)
//   maximum: the first largest in row-major order, NaN counting as largest; its window position i * kernel + j is kept, and
//            dx[y, x] = sum of dy over the windows whose largest is (y, x).
// Both gradients are gathered per input pixel, so windows may overlap and the order of the sum is fixed.

#include "twinlens/kernels/run.h"
#include "twinlens/kernels/view.h"

namespace twinlens {

struct PoolWindows {
  std::int64_t batch, height, width, channels;  // of the input
  std::int64_t out_height, out_width;
  std::int64_t kernel, stride, padding;
};

struct AvgPool2dForward {
  static constexpr const char* kName = "avg_pool2d_forward";
  static constexpr bool kCuda = true;
  ConstBuffer x;  // (B, H, W, C) any float type
  void* y;        // (B, H', W', C) of the same type
  PoolWindows windows;
};
template <class I>
void kernel(I, const AvgPool2dForward&);
void launch(Cuda, Stream&, const AvgPool2dForward&);

struct AvgPool2dBackward {
  static constexpr const char* kName = "avg_pool2d_backward";
  static constexpr bool kCuda = true;
  ConstBuffer dy;  // (B, H', W', C) any float type
  void* dx;        // (B, H, W, C) of the same type
  PoolWindows windows;
};
template <class I>
void kernel(I, const AvgPool2dBackward&);
void launch(Cuda, Stream&, const AvgPool2dBackward&);

struct MaxPool2dForward {
  static constexpr const char* kName = "max_pool2d_forward";
  static constexpr bool kCuda = true;
  ConstBuffer x;        // (B, H, W, C) any float type
  void* y;              // (B, H', W', C) of the same type
  std::int32_t* where;  // (B, H', W', C) window position of the largest
  PoolWindows windows;
};
template <class I>
void kernel(I, const MaxPool2dForward&);
void launch(Cuda, Stream&, const MaxPool2dForward&);

struct MaxPool2dBackward {
  static constexpr const char* kName = "max_pool2d_backward";
  static constexpr bool kCuda = true;
  ConstBuffer dy;             // (B, H', W', C) any float type
  const std::int32_t* where;  // from the forward pass
  void* dx;                   // (B, H, W, C) of the type of dy
  PoolWindows windows;
};
template <class I>
void kernel(I, const MaxPool2dBackward&);
void launch(Cuda, Stream&, const MaxPool2dBackward&);

}  // namespace twinlens
