#pragma once
// Pixels of an RGB picture in 8 bits through an affine map of colour space: y = clip8(round(m x + b)), one picture a call; on the CPU one
// thread. Brightness, contrast, saturation and hue changes are all such maps and compose into one; contrast moves values away from the
// mean luma of the picture, so that b is a multiple of it.

#include "twinlens/kernels/run.h"
#include "twinlens/kernels/view.h"

namespace twinlens {

struct Recolor {
  static constexpr const char* kName = "recolor";
  static constexpr bool kCuda = true;
  const std::uint8_t* x;  // (count, 3)
  std::uint8_t* y;        // (count, 3); may be x
  std::int64_t count;
  float m[9];  // row-major, values 0 to 255
  float b[3];
  const float* luma = nullptr;  // (1): b is times this
};
template <class I>
void kernel(I, const Recolor&);
void launch(Cuda, Stream&, const Recolor&);

// The mean of 0.299 r + 0.587 g + 0.114 b (ITU-R BT.601, as Pillow's convert("L")), from an exact sum: the same bits everywhere.
struct MeanLuma {
  static constexpr const char* kName = "mean_luma";
  static constexpr bool kCuda = true;
  const std::uint8_t* x;  // (count, 3)
  std::int64_t count;     // from 1
  float* mean;            // (1)

  static constexpr int kRed = 299, kGreen = 587, kBlue = 114, kWhole = 1000;
};
template <class I>
void kernel(I, const MeanLuma&);
void launch(Cuda, Stream&, const MeanLuma&);

// y[r][c] = x at (m00 c + m01 r + m02, m10 c + m11 r + m12), bilinear between pixel centres, `fill` outside.
struct WarpAffine {
  static constexpr const char* kName = "warp_affine";
  static constexpr bool kCuda = true;
  const std::uint8_t* x;  // (height, width, 3)
  std::uint8_t* y;        // the same size, not x
  std::int64_t height, width;
  float m[6];
  std::uint8_t fill;
};
template <class I>
void kernel(I, const WarpAffine&);
void launch(Cuda, Stream&, const WarpAffine&);

}  // namespace twinlens
