#include <algorithm>
#include <cmath>

#include "clip/src/image/augment_plan.h"

#include "twinlens/kernels/error.h"

namespace twinlens {
namespace {

// The size x size window in the middle of the picture resized to full_width x full_height; only the window is computed.
AugmentPlan centre_window(std::int64_t width, std::int64_t height, std::int64_t full_width, std::int64_t full_height,
                          const EvalTransform& t) {
  // Half to even, as Python rounds.
  const auto offset = [&](std::int64_t full) {
    return static_cast<std::int64_t>(std::nearbyint(static_cast<double>(full - t.size) / 2.0));
  };
  AugmentPlan plan;
  plan.rect = {0, 0, width, height};
  plan.horizontal = resize_axis(width, 0, static_cast<float>(width), full_width, t.filter, offset(full_width), t.size);
  plan.vertical = resize_axis(height, 0, static_cast<float>(height), full_height, t.filter, offset(full_height), t.size);
  plan.vertical_first = vertical_first(t.order, width, height, full_width, full_height);
  return plan;
}

Image longest(const Image& image, const EvalTransform& t) {
  const double ratio = static_cast<double>(std::max(image.width, image.height)) / static_cast<double>(t.size);
  const auto scaled = [&](std::int64_t edge) {
    return std::clamp<std::int64_t>(static_cast<std::int64_t>(std::nearbyint(static_cast<double>(edge) / ratio)), 1, t.size);
  };
  const Image small = resize(image, scaled(image.width), scaled(image.height), t.filter, t.order);
  Image out{t.size, t.size, std::vector<std::uint8_t>(static_cast<std::size_t>(t.size * t.size * 3), t.fill)};
  const std::int64_t left = (t.size - small.width) / 2, top = (t.size - small.height) / 2;
  for (std::int64_t r = 0; r < small.height; ++r) {
    std::copy_n(small.rgb.data() + r * small.width * 3, small.width * 3, out.rgb.data() + ((top + r) * t.size + left) * 3);
  }
  return out;
}

}  // namespace

AugmentPlan plan_eval(const EvalTransform& t, std::int64_t width, std::int64_t height) {
  if (t.mode == ResizeMode::squash) return centre_window(width, height, t.size, t.size, t);
  const bool wide = width > height;
  const std::int64_t shorter = wide ? height : width, longer = wide ? width : height;
  const std::int64_t full = shorter == t.size ? longer : t.size * longer / shorter;
  return centre_window(width, height, wide ? full : t.size, wide ? t.size : full, t);
}

Image apply(const EvalTransform& t, const Image& image) {
  if (t.size < 1 || image.width < 1 || image.height < 1) {
    throw ShapeError("cannot make a picture of " + std::to_string(image.width) + " x " + std::to_string(image.height) +
                     " into one of size " + std::to_string(t.size) + "; eval transform; use sizes of at least 1");
  }
  if (t.mode == ResizeMode::longest) return longest(image, t);
  const AugmentPlan plan = plan_eval(t, image.width, image.height);
  return run_resize({image.rgb.data(), image.width, image.height, image.width * 3}, plan.horizontal, plan.vertical, plan.vertical_first);
}

std::vector<float> to_chw_float(const Image& image, const std::array<float, 3>& mean, const std::array<float, 3>& std) {
  const std::size_t pixels = image.rgb.size() / 3;
  std::vector<float> out(image.rgb.size());
  for (std::size_t c = 0; c < 3; ++c) {
    for (std::size_t i = 0; i < pixels; ++i) {
      out[c * pixels + i] = (static_cast<float>(image.rgb[i * 3 + c]) / 255.0F - mean[c]) / std[c];
    }
  }
  return out;
}

}  // namespace twinlens
