#pragma once
// What augment() does to a picture, drawn and ready but not done: which rectangle is resized by which tables, and the numbers of what comes
// after it. Whoever has the pixels runs it (augment() on the CPU, clip/src/card_pictures.h on a card).

#include <array>
#include <cstdint>
#include <optional>

#include "clip/src/image/resize_axis.h"

#include "twinlens/clip/augment.h"
#include "twinlens/kernels/stream.h"

namespace twinlens {

struct ColorDraws {
  bool jitter = false, gray = false;
  double brightness = 1.0, contrast = 1.0, saturation = 1.0, hue = 0.0;
};

struct AugmentPlan {
  Rect rect;
  AxisTable horizontal, vertical;  // of the rectangle
  bool vertical_first = false;
  std::optional<std::array<float, 6>> warp;
  std::optional<ColorDraws> color;
  std::optional<std::array<std::uint8_t, 256>> curve;
  std::optional<float> sharpness;

  static constexpr std::uint8_t kFill = 255;  // where the warp looks beyond the picture
};

AugmentPlan plan_augment(const Image& image, std::int64_t size, const AugmentOptions& options, std::uint64_t seed, std::uint64_t epoch,
                         std::int64_t sample);

// The evaluation transform as such a plan; not ResizeMode::longest, which pads.
AugmentPlan plan_eval(const EvalTransform& transform, const Image& image);

// Runs the colour change on (count, 3) pixels in place. `luma`: a float beside them that it may write.
void recolor(Stream& stream, const ColorDraws& color, std::uint8_t* pixels, std::int64_t count, float* luma);

}  // namespace twinlens
