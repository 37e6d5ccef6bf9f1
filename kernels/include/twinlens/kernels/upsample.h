#pragma once
// Nearest-neighbour enlargement of NHWC feature maps by a whole factor:
//   y[b, i, j] = x[b, i / factor, j / factor];  dx[b, i, j] = sum of dy over the factor x factor block of (i, j), row by row.

#include "twinlens/kernels/run.h"
#include "twinlens/kernels/view.h"

namespace twinlens {

struct UpsampleForward {
  static constexpr const char* kName = "upsample_forward";
  static constexpr bool kCuda = true;
  ConstBuffer x;                       // (B * H, W, C) any float type
  void* y;                             // (B * H * factor, W * factor, C) of the same type
  std::int64_t rows, width, channels;  // rows = B * H
  std::int64_t factor;
};
template <class I>
void kernel(I, const UpsampleForward&);
void launch(Cuda, Stream&, const UpsampleForward&);

struct UpsampleBackward {
  static constexpr const char* kName = "upsample_backward";
  static constexpr bool kCuda = true;
  ConstBuffer dy;                      // (B * H * factor, W * factor, C) any float type
  void* dx;                            // (B * H, W, C) of the same type
  std::int64_t rows, width, channels;  // of dx
  std::int64_t factor;
};
template <class I>
void kernel(I, const UpsampleBackward&);
void launch(Cuda, Stream&, const UpsampleBackward&);

}  // namespace twinlens
