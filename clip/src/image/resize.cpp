#include <algorithm>
#include <cmath>
#include <memory>

#include "clip/src/image/resize_axis.h"

#include "twinlens/core/shape.h"
#include "twinlens/kernels/error.h"

namespace twinlens {
namespace {

double weight_of(Filter filter, double x) {
  x = std::abs(x);
  if (filter == Filter::bilinear) return x < 1.0 ? 1.0 - x : 0.0;
  constexpr double a = -0.5;  // Keys (1981), as in Pillow
  if (x < 1.0) return ((a + 2.0) * x - (a + 3.0)) * x * x + 1;
  if (x < 2.0) return (((x - 5) * x + 8) * x - 4) * a;
  return 0.0;
}

std::int32_t to_fixed(double w) { return static_cast<std::int32_t>((w < 0 ? -0.5 : 0.5) + w * (1 << 22)); }

std::string size_text(std::int64_t width, std::int64_t height) { return std::to_string(width) + " x " + std::to_string(height); }

}  // namespace

AxisTable resize_axis(std::int64_t in, float from, float to, std::int64_t out, Filter filter, std::int64_t first, std::int64_t count,
                      bool mirror) {
  const double scale = static_cast<double>(to - from) / static_cast<double>(out);  // the difference in float, as Pillow has it
  const double filter_scale = std::max(scale, 1.0);
  const double support = (filter == Filter::bicubic ? 2.0 : 1.0) * filter_scale;
  const double inverse = 1.0 / filter_scale;
  AxisTable table;
  table.stride = static_cast<std::int64_t>(std::ceil(support)) * 2 + 1;
  table.weights.assign(static_cast<std::size_t>(count * table.stride), 0);
  std::vector<double> weights(static_cast<std::size_t>(table.stride));
  for (std::int64_t i = 0; i < count; ++i) {
    const std::int64_t xx = first + (mirror ? count - 1 - i : i);
    const double centre = static_cast<double>(from) + (static_cast<double>(xx) + 0.5) * scale;
    const std::int64_t low = std::max<std::int64_t>(static_cast<std::int64_t>(centre - support + 0.5), 0);
    const std::int64_t high = std::min(static_cast<std::int64_t>(centre + support + 0.5), in);
    double sum = 0.0;
    for (std::int64_t k = 0; k < high - low; ++k) {
      const double w = weight_of(filter, (static_cast<double>(k + low) - centre + 0.5) * inverse);
      weights[static_cast<std::size_t>(k)] = w;
      sum += w;
    }
    for (std::int64_t k = 0; k < high - low; ++k) {
      const double w = weights[static_cast<std::size_t>(k)];
      table.weights[static_cast<std::size_t>(i * table.stride + k)] = to_fixed(sum != 0.0 ? w / sum : w);
    }
    table.begin.push_back(static_cast<std::int32_t>(low));
    table.taps.push_back(static_cast<std::int32_t>(high - low));
  }
  return table;
}

bool vertical_first(PassOrder order, std::int64_t width, std::int64_t height, std::int64_t new_width, std::int64_t new_height) {
  return order == PassOrder::pillow_13 && new_height < height && 2 * (width - new_width) < height - new_height;
}

ResizeRows rows_read(const AxisTable& vertical) {
  std::int64_t first = vertical.begin.front(), last = 0;
  for (std::size_t i = 0; i < vertical.begin.size(); ++i) {
    first = std::min<std::int64_t>(first, vertical.begin[i]);
    last = std::max<std::int64_t>(last, vertical.begin[i] + vertical.taps[i]);
  }
  return {first, last - first};
}

std::int64_t resize_scratch(std::int64_t x_width, const AxisTable& horizontal, const AxisTable& vertical, bool vertical_goes_first) {
  return 3 * (vertical_goes_first ? static_cast<std::int64_t>(vertical.begin.size()) * x_width
                                  : rows_read(vertical).count * static_cast<std::int64_t>(horizontal.begin.size()));
}

Image run_resize(const PixelView& x, const AxisTable& horizontal, const AxisTable& vertical, bool vertical_goes_first) {
  Image out;
  out.width = static_cast<std::int64_t>(horizontal.begin.size());
  out.height = static_cast<std::int64_t>(vertical.begin.size());
  out.rgb.resize(static_cast<std::size_t>(out.width * out.height * 3));
  const ResizeRows rows = rows_read(vertical);
  const auto scratch = std::make_unique_for_overwrite<std::uint8_t[]>(
      static_cast<std::size_t>(resize_scratch(x.width, horizontal, vertical, vertical_goes_first)));
  run(current_stream(kCpu), Resize{x.data, x.width, x.stride, horizontal.view(), vertical.view(), rows.first, rows.count,
                                   vertical_goes_first, scratch.get(), out.rgb.data()});
  return out;
}

void check_pixels(const Image& image) {
  const std::int64_t pixels = image.width < 1 || image.height < 1 ? 0 : Shape{image.width, image.height, 3}.count();
  if (pixels == 0 || static_cast<std::int64_t>(image.rgb.size()) != pixels) {
    throw ShapeError("a picture of " + size_text(image.width, image.height) + " with " + std::to_string(image.rgb.size()) +
                     " bytes; Image::rgb; give width * height * 3, of at least one pixel");
  }
}

Image resize(const Image& image, std::int64_t width, std::int64_t height, Filter filter, const Box& box, PassOrder order) {
  if (width < 1 || height < 1 || image.width < 1 || image.height < 1) {
    throw ShapeError("cannot resize " + size_text(image.width, image.height) + " to " + size_text(width, height) +
                     "; resize; use sizes of at least 1 x 1");
  }
  check_pixels(image);
  const bool inside = box.left >= 0 && box.top >= 0 && box.right <= static_cast<float>(image.width) &&
                      box.bottom <= static_cast<float>(image.height) && box.left < box.right && box.top < box.bottom;
  if (!inside) {
    throw ShapeError("the box (" + std::to_string(box.left) + ", " + std::to_string(box.top) + ", " + std::to_string(box.right) + ", " +
                     std::to_string(box.bottom) + ") is empty or leaves the picture of " + size_text(image.width, image.height) +
                     "; resize; use 0 <= left < right <= width and 0 <= top < bottom <= height");
  }
  return run_resize({image.rgb.data(), image.width, image.height, image.width * 3},
                    resize_axis(image.width, box.left, box.right, width, filter, 0, width),
                    resize_axis(image.height, box.top, box.bottom, height, filter, 0, height),
                    vertical_first(order, image.width, image.height, width, height));
}

Box whole(const Image& image) {
  if (image.scale == 1.0) return {0, 0, static_cast<float>(image.width), static_cast<float>(image.height)};
  return {image.left, image.top, image.left + static_cast<float>(image.scale * static_cast<double>(image.full_width)),
          image.top + static_cast<float>(image.scale * static_cast<double>(image.full_height))};
}

Image resize(const Image& image, std::int64_t width, std::int64_t height, Filter filter, PassOrder order) {
  return resize(image, width, height, filter, whole(image), order);
}

Image crop_and_resize(const Image& image, const Rect& rect, std::int64_t size, Filter filter, bool mirror, PassOrder order) {
  if (size < 1 || rect.width < 1 || rect.height < 1 || rect.left < 0 || rect.top < 0 || rect.width > image.width - rect.left ||
      rect.height > image.height - rect.top) {
    throw ShapeError("the rectangle " + size_text(rect.width, rect.height) + " at (" + std::to_string(rect.left) + ", " +
                     std::to_string(rect.top) + ") is empty or leaves the picture of " + size_text(image.width, image.height) +
                     ", or the size " + std::to_string(size) + " is not positive; crop_and_resize; use a rectangle within the picture");
  }
  check_pixels(image);
  const std::uint8_t* const corner = image.rgb.data() + (rect.top * image.width + rect.left) * 3;
  return run_resize({corner, rect.width, rect.height, image.width * 3},
                    resize_axis(rect.width, 0, static_cast<float>(rect.width), size, filter, 0, size, mirror),
                    resize_axis(rect.height, 0, static_cast<float>(rect.height), size, filter, 0, size),
                    vertical_first(order, rect.width, rect.height, size, size));
}

}  // namespace twinlens
