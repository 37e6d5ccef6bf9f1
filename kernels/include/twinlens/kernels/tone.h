#pragma once
// Tone and sharpness of an RGB picture in 8 bits, one picture a call, one thread.

#include "twinlens/kernels/run.h"
#include "twinlens/kernels/view.h"

namespace twinlens {

// y[i] = curve[x[i]] for every byte: gamma, inversion and whatever else maps a value by itself.
struct ToneCurve {
  static constexpr const char* kName = "tone_curve";
  static constexpr bool kCuda = true;
  const std::uint8_t* x;  // (count)
  std::uint8_t* y;        // (count); may be x
  std::int64_t count;
  const std::uint8_t* curve;  // (256)
};
template <class I>
void kernel(I, const ToneCurve&);
void launch(Cuda, Stream&, const ToneCurve&);

// y = clip8(round(s + factor (x - s))), s the mean of the 3 x 3 pixels around, the border repeated: 0 blurs, 1 changes nothing, above 1
// sharpens (the convention of Pillow's ImageEnhance.Sharpness).
struct Sharpness {
  static constexpr const char* kName = "sharpness";
  static constexpr bool kCuda = true;
  const std::uint8_t* x;  // (height, width, 3)
  std::uint8_t* y;        // the same size, not x
  std::int64_t height, width;
  float factor;
};
template <class I>
void kernel(I, const Sharpness&);
void launch(Cuda, Stream&, const Sharpness&);

}  // namespace twinlens
