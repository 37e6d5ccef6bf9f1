#pragma once
// The weight tables of one axis of a resize, in double precision and then 22-bit fixed point as Pillow makes them.

#include <cstdint>
#include <vector>

#include "twinlens/clip/image.h"
#include "twinlens/kernels/resize.h"

namespace twinlens {

struct AxisTable {
  std::vector<std::int32_t> begin, taps, weights;
  std::int64_t stride = 0;
  ResizeAxis view() const { return {begin.data(), taps.data(), weights.data(), static_cast<std::int64_t>(begin.size()), stride}; }
};

// Resizes [from, to) of an axis of `in` pixels to `out` pixels, of which only [first, first + count) are wanted, in reverse order when
// `mirror`.
AxisTable resize_axis(std::int64_t in, float from, float to, std::int64_t out, Filter filter, std::int64_t first, std::int64_t count,
                      bool mirror = false);

// Throws ShapeError when there is no pixel, or `rgb` has not the bytes of width x height.
void check_pixels(const Image& image);

// The picture without what rounding the sizes up has added.
Box whole(const Image& image);

// A picture of width x height inside a buffer with rows `stride` bytes apart.
struct PixelView {
  const std::uint8_t* data;
  std::int64_t width, height, stride;
};
// Whether Pillow resizes the height first, for the sizes of the whole picture before and after.
bool vertical_first(PassOrder order, std::int64_t width, std::int64_t height, std::int64_t new_width, std::int64_t new_height);
// Rows of x that the vertical axis reads: the first, and how many. And the bytes of scratch that the kernel wants.
struct ResizeRows {
  std::int64_t first = 0, count = 0;
};
ResizeRows rows_read(const AxisTable& vertical);
std::int64_t resize_scratch(std::int64_t x_width, const AxisTable& horizontal, const AxisTable& vertical, bool vertical_first);
Image run_resize(const PixelView& x, const AxisTable& horizontal, const AxisTable& vertical, bool vertical_first);

}  // namespace twinlens
