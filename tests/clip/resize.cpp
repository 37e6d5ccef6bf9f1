// Resizing on every instruction set, byte for byte what the plain loops of the scalar set give. (Those against Pillow:
// tests/clip/image.cpp.)

#include "twinlens/kernels/resize.h"

#include <algorithm>
#include <array>
#include <catch2/catch.hpp>
#include <memory>
#include <random>
#include <vector>

#include "clip/src/image/resize_axis.h"
#include "tests/kernels/every_set.h"

namespace twinlens::test {
namespace {

// Bytes that end where the memory ends, so that a sanitizer sees every byte read too far; noise, with saturated stretches.
struct Picture {
  std::int64_t width, height;
  std::unique_ptr<std::uint8_t[]> bytes;
  Picture(std::int64_t w, std::int64_t h, std::mt19937& random)
      : width(w), height(h), bytes(std::make_unique<std::uint8_t[]>(static_cast<std::size_t>(w * h * 3))) {
    for (std::int64_t i = 0; i < w * h * 3; ++i) {
      const auto v = random();
      bytes[static_cast<std::size_t>(i)] = static_cast<std::uint8_t>(v % 4 == 0 ? 255 : v % 4 == 1 ? 0 : v >> 24);
    }
  }
};

void compare(const PixelView& view, const AxisTable& horizontal, const AxisTable& vertical) {
  for (const bool vertical_goes_first : {false, true}) {
    CAPTURE(view.width, view.height, horizontal.begin.size(), vertical.begin.size(), vertical_goes_first);
    Image want;
    on_every_set([&] {
      const Image got = run_resize(view, horizontal, vertical, vertical_goes_first);
      if (want.rgb.empty()) want = got;  // the scalar set comes first
      REQUIRE(got.rgb == want.rgb);
    });
  }
}

std::int64_t between(std::mt19937& random, std::int64_t low, std::int64_t high) {
  return low + static_cast<std::int64_t>(random() % static_cast<std::uint32_t>(high - low + 1));
}

}  // namespace

TEST_CASE("resize: every set gives the scalar set's bytes, whatever the sizes, crops, mirrors and order of passes") {
  std::mt19937 random(7);
  for (int k = 0; k < 400; ++k) {
    const std::int64_t most = k % 4 == 0 ? 12 : k % 4 == 1 ? 40 : 150;
    const Picture picture(between(random, 1, most), between(random, 1, most), random);
    const std::int64_t w = between(random, 1, picture.width), h = between(random, 1, picture.height);
    // The last crop ends with the picture.
    const std::int64_t left = k % 3 == 0 ? picture.width - w : between(random, 0, picture.width - w);
    const std::int64_t top = k % 3 == 0 ? picture.height - h : between(random, 0, picture.height - h);
    const PixelView crop{picture.bytes.get() + (top * picture.width + left) * 3, w, h, picture.width * 3};
    const Filter filter = k % 2 == 0 ? Filter::bicubic : Filter::bilinear;
    const std::int64_t columns = between(random, 1, 90), rows = between(random, 1, 90);
    const std::int64_t first = between(random, 0, columns - 1), count = between(random, 1, columns - first);
    compare(crop, resize_axis(w, 0, static_cast<float>(w), columns, filter, first, count, k % 5 < 2),
            resize_axis(h, 0, static_cast<float>(h), rows, filter, 0, rows));
    const float from = static_cast<float>(w) * 0.13F, to = static_cast<float>(w) * 0.78F;
    compare(crop, resize_axis(w, from, to, columns, filter, 0, columns, k % 5 < 2),
            resize_axis(h, 0, static_cast<float>(h), rows, filter, 0, rows));
  }
}

TEST_CASE("resize: every set, where there are many rows, many taps or hardly any result") {
  std::mt19937 random(8);
  for (const auto& [width, height, columns, rows] :
       {std::array<std::int64_t, 4>{500, 375, 224, 224}, {300, 5, 224, 2}, {2100, 9, 8, 4}, {900, 260, 1, 260}, {31, 300, 3, 129}}) {
    const Picture picture(width, height, random);
    compare({picture.bytes.get(), width, height, width * 3},
            resize_axis(width, 0, static_cast<float>(width), columns, Filter::bicubic, 0, columns),
            resize_axis(height, 0, static_cast<float>(height), rows, Filter::bicubic, 0, rows));
  }
}

TEST_CASE("resize: sums that leave the range of a byte by far are clipped alike") {
  std::mt19937 random(9);
  const Picture picture(64, 21, random);
  AxisTable across, down = resize_axis(21, 0, 21, 21, Filter::bicubic, 0, 21);
  across.stride = 5;                                    // no room behind the last weight
  constexpr std::int32_t most = (1 << 21) + (1 << 19);  // three of them times 255 are still 32 bits
  for (std::int32_t i = 0; i < 40; ++i) {
    across.begin.push_back(i % 2 == 0 ? i : 59 - i / 2);
    across.taps.push_back(i % 6);
    for (const std::int32_t w : {most, -most, most - 1, 1 - most, i % 2 == 0 ? most : -4097}) across.weights.push_back(i % 4 < 2 ? w : -w);
  }
  for (std::size_t i = 0; i < across.begin.size(); ++i) across.begin[i] = std::min(across.begin[i], 64 - across.taps[i]);
  compare({picture.bytes.get(), 64, 21, 64 * 3}, across, down);
}

}  // namespace twinlens::test
