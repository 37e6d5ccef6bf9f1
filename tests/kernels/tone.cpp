// Tone curves, sharpness and contrast of 8-bit pictures against plain loops in double, on every instruction set.

#include "twinlens/kernels/tone.h"

#include <algorithm>
#include <array>
#include <catch2/catch.hpp>
#include <cmath>
#include <vector>

#include "tests/kernels/every_set.h"

#include "twinlens/kernels/recolor.h"

namespace twinlens::test {
namespace {

std::vector<std::uint8_t> picture(std::int64_t height, std::int64_t width) {
  std::vector<std::uint8_t> x(static_cast<std::size_t>(height * width * 3));
  std::uint32_t state = 12345;
  for (std::uint8_t& v : x) v = static_cast<std::uint8_t>((state = state * 1664525U + 1013904223U) >> 24);
  return x;
}

TEST_CASE("tone curve: every byte through the table") {
  std::array<std::uint8_t, 256> curve{};
  for (std::size_t i = 0; i < 256; ++i) curve[i] = static_cast<std::uint8_t>(255 - i / 2);
  on_every_set([&] {
    std::vector<std::uint8_t> x = picture(3, 7), want = x;
    for (std::uint8_t& v : want) v = curve[v];
    run(current_stream(kCpu), ToneCurve{x.data(), x.data(), static_cast<std::int64_t>(x.size()), curve.data()});
    CHECK(x == want);
  });
}

TEST_CASE("sharpness: away from or towards the mean of nine, the border repeated") {
  for (const auto& [height, width] : {std::pair<std::int64_t, std::int64_t>{1, 1}, {1, 5}, {4, 1}, {2, 2}, {9, 17}}) {
    for (const float factor : {0.0F, 0.3F, 1.0F, 1.8F}) {
      INFO(height << " x " << width << ", factor " << factor);
      const std::vector<std::uint8_t> x = picture(height, width);
      on_every_set([&, h = height, w = width] {
        std::vector<std::uint8_t> y(x.size(), 77);
        run(current_stream(kCpu), Sharpness{x.data(), y.data(), h, w, factor});
        for (std::int64_t r = 0; r < h; ++r) {
          for (std::int64_t c = 0; c < w; ++c) {
            for (std::int64_t k = 0; k < 3; ++k) {
              const auto at = [&](std::int64_t i, std::int64_t j) {
                return static_cast<double>(x[static_cast<std::size_t>(
                    (std::clamp<std::int64_t>(i, 0, h - 1) * w + std::clamp<std::int64_t>(j, 0, w - 1)) * 3 + k)]);
              };
              double mean = 0.0;
              for (int i = -1; i <= 1; ++i) {
                for (int j = -1; j <= 1; ++j) mean += at(r + i, c + j) / 9.0;
              }
              const double want = std::clamp(mean + static_cast<double>(factor) * (at(r, c) - mean), 0.0, 255.0);
              // Half-way values may round either way.
              REQUIRE(std::abs(static_cast<double>(y[static_cast<std::size_t>((r * w + c) * 3 + k)]) - want) <= 0.5001);
            }
          }
        }
      });
    }
  }
}

TEST_CASE("contrast: away from or towards the mean luma, which has the same bits on every set") {
  for (const auto& [height, width] : {std::pair<std::int64_t, std::int64_t>{1, 1}, {3, 5}, {224, 224}}) {
    const std::vector<std::uint8_t> x = picture(height, width);
    const std::int64_t count = height * width;
    double mean = 0.0;
    for (std::size_t i = 0; i < x.size(); i += 3) mean += (0.299 * x[i] + 0.587 * x[i + 1] + 0.114 * x[i + 2]) / static_cast<double>(count);
    for (const float factor : {0.0F, 0.4F, 1.0F, 1.7F}) {
      INFO(height << " x " << width << ", factor " << factor);
      on_every_set([&] {
        float luma = -1.0F;
        std::vector<std::uint8_t> y = x;
        run(current_stream(kCpu), MeanLuma{y.data(), count, &luma});
        CHECK(luma == static_cast<float>(mean));
        const float away = 1.0F - factor;
        run(current_stream(kCpu),
            Recolor{y.data(), y.data(), count, {factor, 0, 0, 0, factor, 0, 0, 0, factor}, {away, away, away}, &luma});
        for (std::size_t i = 0; i < x.size(); ++i) {
          const double want = std::clamp(mean + static_cast<double>(factor) * (x[i] - mean), 0.0, 255.0);
          REQUIRE(std::abs(static_cast<double>(y[i]) - want) <= 0.5001);  // half-way values may round either way
        }
      });
    }
  }
  // A sum above 32 bits.
  const std::vector<std::uint8_t> white(std::size_t{3} * 5000 * 4000, 255);
  on_every_set([&] {
    float luma = 0.0F;
    run(current_stream(kCpu), MeanLuma{white.data(), static_cast<std::int64_t>(white.size() / 3), &luma});
    CHECK(luma == 255.0F);
  });
}

}  // namespace
}  // namespace twinlens::test
