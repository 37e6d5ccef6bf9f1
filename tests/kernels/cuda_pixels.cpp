// Kernels on pictures in bytes have no op and so no op case: the card is compared with the CPU.
#include <algorithm>
#include <catch2/catch.hpp>
#include <cstdlib>
#include <utility>
#include <vector>

#include "tests/support/no_card.h"

#include "twinlens/kernels/memory.h"
#include "twinlens/kernels/recolor.h"
#include "twinlens/kernels/resize.h"
#include "twinlens/kernels/tone.h"

namespace twinlens {
namespace {

constexpr Device kCard{DeviceType::cuda, 0};

std::vector<std::uint8_t> picture(std::int64_t bytes) {
  std::vector<std::uint8_t> x(static_cast<std::size_t>(bytes));
  for (std::size_t i = 0; i < x.size(); ++i) x[i] = static_cast<std::uint8_t>(i * 73 + i / 7 * 31);
  return x;
}

// Values on the card for the length of a call.
template <class T>
struct OnCard {
  Memory memory;
  explicit OnCard(const std::vector<T>& x) : memory(allocate(current_stream(kCard), x.size() * sizeof(T))) {
    copy_bytes(current_stream(kCard), memory.data(), kCard, x.data(), kCpu, x.size() * sizeof(T));
  }
  T* data() const { return static_cast<T*>(memory.data()); }
  std::vector<T> back() const {
    std::vector<T> x(memory.bytes() / sizeof(T));
    copy_bytes(current_stream(kCard), x.data(), kCpu, memory.data(), kCard, x.size() * sizeof(T));
    return x;
  }
};

// `count` results of 5 taps each over `size` pixels.
struct Axis {
  std::vector<std::int32_t> begin, taps, weights;
  Axis(std::int64_t count, std::int64_t size) {
    for (std::int64_t i = 0; i < count; ++i) {
      begin.push_back(static_cast<std::int32_t>(i * (size - 5) / count));
      taps.push_back(5);
      for (const int w : {-200000, 1100000, 2500000, 900000, -105696}) weights.push_back(w);
    }
  }
};

}  // namespace

TEST_CASE("the card resizes to the byte as the CPU does", "[cuda]") {
  if (test::no_card()) return;
  const std::int64_t height = 37, width = 53, rows = 20, cols = 31;
  const Axis across(cols, width), down(rows, height);
  const std::vector<std::uint8_t> x = picture(height * width * 3);
  for (const bool vertical_first : {false, true}) {
    std::vector<std::uint8_t> scratch(static_cast<std::size_t>(height * width * 3)), y(static_cast<std::size_t>(rows * cols * 3));
    Resize host{x.data(),
                width,
                width * 3,
                {across.begin.data(), across.taps.data(), across.weights.data(), cols, 5},
                {down.begin.data(), down.taps.data(), down.weights.data(), rows, 5},
                0,
                height,
                vertical_first,
                scratch.data(),
                y.data()};
    run(current_stream(kCpu), host);
    const OnCard<std::uint8_t> card_x(x), card_scratch(scratch), card_y(std::vector<std::uint8_t>(y.size()));
    const OnCard<std::int32_t> ab(across.begin), at(across.taps), aw(across.weights), db(down.begin), dt(down.taps), dw(down.weights);
    Resize card = host;
    card.x = card_x.data();
    card.horizontal = {ab.data(), at.data(), aw.data(), cols, 5};
    card.vertical = {db.data(), dt.data(), dw.data(), rows, 5};
    card.scratch = card_scratch.data();
    card.y = card_y.data();
    run(current_stream(kCard), card);
    CHECK(card_y.back() == y);
  }
}

TEST_CASE("the card recolours and warps as the CPU does, to one level", "[cuda]") {
  if (test::no_card()) return;
  const std::int64_t height = 33, width = 41, bytes = height * width * 3;
  const std::vector<std::uint8_t> x = picture(bytes);
  const OnCard<std::uint8_t> card_x(x), card_y(std::vector<std::uint8_t>(x.size()));
  std::vector<std::uint8_t> y(x.size());
  const auto same = [&] {
    const std::vector<std::uint8_t> got = card_y.back();
    int most = 0;
    for (std::size_t i = 0; i < y.size(); ++i) most = std::max(most, std::abs(int{got[i]} - int{y[i]}));
    return most <= 1;  // sums are contracted in another order
  };
  Recolor colour{x.data(), y.data(), height * width, {0.8F, 0.3F, -0.1F, 0.05F, 0.9F, 0.1F, -0.2F, 0.4F, 0.7F}, {5.0F, -3.0F, 9.5F},
                 nullptr};
  run(current_stream(kCpu), colour);
  colour.x = card_x.data();
  colour.y = card_y.data();
  run(current_stream(kCard), colour);
  CHECK(same());
  // The mean is exact, and so the same.
  float luma = 0.0F;
  run(current_stream(kCpu), MeanLuma{x.data(), height * width, &luma});
  const OnCard<float> card_luma(std::vector<float>{0.0F});
  run(current_stream(kCard), MeanLuma{card_x.data(), height * width, card_luma.data()});
  CHECK(card_luma.back()[0] == luma);
  Recolor contrast{x.data(), y.data(), height * width, {0.7F, 0, 0, 0, 0.7F, 0, 0, 0, 0.7F}, {0.3F, 0.3F, 0.3F}, &luma};
  run(current_stream(kCpu), contrast);
  contrast.x = card_x.data();
  contrast.y = card_y.data();
  contrast.luma = card_luma.data();
  run(current_stream(kCard), contrast);
  CHECK(same());
  WarpAffine warp{x.data(), y.data(), height, width, {0.9F, 0.2F, -1.5F, -0.2F, 1.1F, 2.25F}, 7};
  run(current_stream(kCpu), warp);
  warp.x = card_x.data();
  warp.y = card_y.data();
  run(current_stream(kCard), warp);
  CHECK(same());
}

TEST_CASE("the card's tone curve has the CPU's bytes, its sharpness to one level", "[cuda]") {
  if (test::no_card()) return;
  for (const auto& [height, width] : {std::pair<std::int64_t, std::int64_t>{1, 1}, {1, 5}, {4, 1}, {33, 41}}) {
    INFO(height << " x " << width);
    const std::int64_t bytes = height * width * 3;
    const std::vector<std::uint8_t> x = picture(bytes);
    std::vector<std::uint8_t> curve(256), y(x.size());
    for (std::size_t i = 0; i < curve.size(); ++i) curve[i] = static_cast<std::uint8_t>(255 - i / 2);
    const OnCard<std::uint8_t> card_x(x), card_curve(curve), card_y(std::vector<std::uint8_t>(x.size()));
    run(current_stream(kCpu), ToneCurve{x.data(), y.data(), bytes, curve.data()});
    run(current_stream(kCard), ToneCurve{card_x.data(), card_y.data(), bytes, card_curve.data()});
    CHECK(card_y.back() == y);
    for (const float factor : {0.0F, 0.3F, 1.8F}) {
      run(current_stream(kCpu), Sharpness{x.data(), y.data(), height, width, factor});
      run(current_stream(kCard), Sharpness{card_x.data(), card_y.data(), height, width, factor});
      const std::vector<std::uint8_t> got = card_y.back();
      for (std::size_t i = 0; i < y.size(); ++i) REQUIRE(std::abs(int{got[i]} - int{y[i]}) <= 1);
    }
  }
}

}  // namespace twinlens
