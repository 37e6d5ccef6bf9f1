#include <algorithm>
#include <cmath>

#include "clip/src/image/augment_plan.h"

#include "twinlens/kernels/error.h"

namespace twinlens {
namespace {

struct Size {
  std::int64_t width, height;
};
Size full_size(const Image& image) {
  return image.scale == 1.0 ? Size{image.width, image.height} : Size{image.full_width, image.full_height};
}

// The size x size window in the middle of the picture resized to full_width x full_height; only the window is computed.
AugmentPlan centre_window(const Image& image, std::int64_t full_width, std::int64_t full_height, const EvalTransform& t) {
  // Half to even, as Python rounds.
  const auto offset = [&](std::int64_t full) {
    return static_cast<std::int64_t>(std::nearbyint(static_cast<double>(full - t.size) / 2.0));
  };
  const Box box = whole(image);
  AugmentPlan plan;
  plan.rect = {0, 0, image.width, image.height};
  plan.horizontal = resize_axis(image.width, box.left, box.right, full_width, t.filter, offset(full_width), t.size);
  plan.vertical = resize_axis(image.height, box.top, box.bottom, full_height, t.filter, offset(full_height), t.size);
  plan.vertical_first = vertical_first(t.order, image.width, image.height, full_width, full_height);
  return plan;
}

Image longest(const Image& image, const EvalTransform& t) {
  const auto [width, height] = full_size(image);
  const double ratio = static_cast<double>(std::max(width, height)) / static_cast<double>(t.size);
  const auto scaled = [&](std::int64_t edge) {
    return std::clamp<std::int64_t>(static_cast<std::int64_t>(std::nearbyint(static_cast<double>(edge) / ratio)), 1, t.size);
  };
  const Image small = resize(image, scaled(width), scaled(height), t.filter, t.order);
  Image out{t.size, t.size, std::vector<std::uint8_t>(static_cast<std::size_t>(t.size * t.size * 3), t.fill)};
  const std::int64_t left = (t.size - small.width) / 2, top = (t.size - small.height) / 2;
  for (std::int64_t r = 0; r < small.height; ++r) {
    std::copy_n(small.rgb.data() + r * small.width * 3, small.width * 3, out.rgb.data() + ((top + r) * t.size + left) * 3);
  }
  return out;
}

}  // namespace

AugmentPlan plan_eval(const EvalTransform& t, const Image& image) {
  if (t.mode == ResizeMode::squash) return centre_window(image, t.size, t.size, t);
  const auto [width, height] = full_size(image);
  const bool wide = width > height;
  const std::int64_t shorter = wide ? height : width, longer = wide ? width : height;
  const std::int64_t full = shorter == t.size ? longer : t.size * longer / shorter;
  return centre_window(image, wide ? full : t.size, wide ? t.size : full, t);
}

Image apply(const EvalTransform& t, const Image& image) {
  if (t.size < 1 || image.width < 1 || image.height < 1) {
    throw ShapeError("cannot make a picture of " + std::to_string(image.width) + " x " + std::to_string(image.height) +
                     " into one of size " + std::to_string(t.size) + "; eval transform; use sizes of at least 1");
  }
  check_pixels(image);
  if (t.mode == ResizeMode::longest) return longest(image, t);
  const AugmentPlan plan = plan_eval(t, image);
  return run_resize({image.rgb.data(), image.width, image.height, image.width * 3}, plan.horizontal, plan.vertical, plan.vertical_first);
}

double least_scale(const EvalTransform& t, std::int64_t width, std::int64_t height) {
  const std::int64_t edge = t.mode == ResizeMode::longest ? std::max(width, height) : std::min(width, height);
  return static_cast<double>(t.size) / static_cast<double>(edge);
}

std::vector<float> to_chw_float(const Image& image, const std::array<float, 3>& mean, const std::array<float, 3>& std) {
  // A channel has 256 values: two divisions for each of them, not for each pixel.
  std::array<std::array<float, 256>, 3> value;
  for (std::size_t c = 0; c < 3; ++c) {
    for (std::size_t v = 0; v < 256; ++v) value[c][v] = (static_cast<float>(v) / 255.0F - mean[c]) / std[c];
  }
  const std::size_t pixels = image.rgb.size() / 3;
  std::vector<float> out(image.rgb.size());
  const std::uint8_t* const rgb = image.rgb.data();
  float* const planes = out.data();
  for (std::size_t i = 0; i < pixels; ++i) {
    for (std::size_t c = 0; c < 3; ++c) planes[c * pixels + i] = value[c][rgb[3 * i + c]];
  }
  return out;
}

}  // namespace twinlens
