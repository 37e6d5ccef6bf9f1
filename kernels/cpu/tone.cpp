#include "twinlens/kernels/tone.h"

namespace twinlens {

template <class I>
void kernel(I, const ToneCurve& a) {
  for (std::int64_t i = 0; i < a.count; ++i) a.y[i] = a.curve[a.x[i]];
}
template void kernel(TWINLENS_ISA, const ToneCurve&);

template <class I>
void kernel(I, const Sharpness& a) {
  const std::int64_t row_bytes = 3 * a.width;
  // The last pixel's neighbour to the right is itself; so is the first one's to the left.
  const auto column = [&](std::int64_t i, std::int64_t step) {
    const std::int64_t at = i + step;
    return at < 0 || at >= row_bytes ? i : at;
  };
  const auto pixel = [&](std::int64_t r, std::int64_t i, std::int64_t left, std::int64_t right) {
    const std::uint8_t* above = a.x + (r > 0 ? r - 1 : r) * row_bytes;
    const std::uint8_t* here = a.x + r * row_bytes;
    const std::uint8_t* below = a.x + (r + 1 < a.height ? r + 1 : r) * row_bytes;
    const int sum = above[left] + above[i] + above[right] + here[left] + here[i] + here[right] + below[left] + below[i] + below[right];
    const float mean = static_cast<float>(sum) * (1.0F / 9.0F), x = here[i], v = mean + a.factor * (x - mean);
    a.y[r * row_bytes + i] = static_cast<std::uint8_t>(v < 0.0F ? 0.0F : v > 255.0F ? 255.0F : v + 0.5F);
  };
  for (std::int64_t r = 0; r < a.height; ++r) {
    for (std::int64_t i = 0; i < 3 && i < row_bytes; ++i) pixel(r, i, column(i, -3), column(i, 3));
    for (std::int64_t i = 3; i < row_bytes - 3; ++i) pixel(r, i, i - 3, i + 3);
    for (std::int64_t i = row_bytes > 3 ? row_bytes - 3 : row_bytes; i < row_bytes; ++i) pixel(r, i, column(i, -3), column(i, 3));
  }
}
template void kernel(TWINLENS_ISA, const Sharpness&);

}  // namespace twinlens
