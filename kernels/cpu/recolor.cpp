#include "twinlens/kernels/recolor.h"

namespace twinlens {
namespace {

[[gnu::always_inline]] inline std::uint8_t clip8(float v) {
  return static_cast<std::uint8_t>(v < 0.0F ? 0.0F : v > 255.0F ? 255.0F : v + 0.5F);
}

}  // namespace

template <class I>
void kernel(I, const Recolor& a) {
  const float luma = a.luma == nullptr ? 1.0F : *a.luma, shift[3] = {a.b[0] * luma, a.b[1] * luma, a.b[2] * luma};
  for (std::int64_t i = 0; i < a.count; ++i) {
    const float r = a.x[3 * i], g = a.x[3 * i + 1], b = a.x[3 * i + 2];
    for (int c = 0; c < 3; ++c) a.y[3 * i + c] = clip8(a.m[3 * c] * r + a.m[3 * c + 1] * g + a.m[3 * c + 2] * b + shift[c]);
  }
}
template void kernel(TWINLENS_ISA, const Recolor&);

template <class I>
void kernel(I, const MeanLuma& a) {
  using M = MeanLuma;
  std::int64_t sum = 0;
  for (std::int64_t i = 0; i < a.count; ++i) sum += M::kRed * a.x[3 * i] + M::kGreen * a.x[3 * i + 1] + M::kBlue * a.x[3 * i + 2];
  *a.mean = static_cast<float>(static_cast<double>(sum) / static_cast<double>(M::kWhole * a.count));
}
template void kernel(TWINLENS_ISA, const MeanLuma&);

template <class I>
void kernel(I, const WarpAffine& a) {
  const auto pixel = [&](std::int64_t r, std::int64_t c, int channel) {
    const bool inside = r >= 0 && r < a.height && c >= 0 && c < a.width;
    return static_cast<float>(inside ? a.x[(r * a.width + c) * 3 + channel] : a.fill);
  };
  for (std::int64_t r = 0; r < a.height; ++r) {
    for (std::int64_t c = 0; c < a.width; ++c) {
      const float fc = static_cast<float>(c), fr = static_cast<float>(r);
      const float sx = a.m[0] * fc + a.m[1] * fr + a.m[2], sy = a.m[3] * fc + a.m[4] * fr + a.m[5];
      const float x0 = __builtin_floorf(sx), y0 = __builtin_floorf(sy);
      const float dx = sx - x0, dy = sy - y0;
      const auto ix = static_cast<std::int64_t>(x0), iy = static_cast<std::int64_t>(y0);
      for (int channel = 0; channel < 3; ++channel) {
        const float top = pixel(iy, ix, channel) * (1.0F - dx) + pixel(iy, ix + 1, channel) * dx;
        const float bottom = pixel(iy + 1, ix, channel) * (1.0F - dx) + pixel(iy + 1, ix + 1, channel) * dx;
        a.y[(r * a.width + c) * 3 + channel] = clip8(top * (1.0F - dy) + bottom * dy);
      }
    }
  }
}
template void kernel(TWINLENS_ISA, const WarpAffine&);

}  // namespace twinlens
