#include "clip/src/formats/resize_positions.h"

#include <algorithm>
#include <cmath>
#include <vector>

#include "twinlens/core/autograd.h"
#include "twinlens/core/check.h"

namespace twinlens {
namespace {

// Row i of the result is sum_k weight[k] row[begin + k].
struct Taps {
  std::int64_t begin = 0;
  std::vector<double> weights;
};

double cubic(double x) {
  constexpr double a = -0.5;
  x = std::abs(x);
  if (x < 1.0) return ((a + 2.0) * x - (a + 3.0)) * x * x + 1.0;
  return x < 2.0 ? (((x - 5.0) * x + 8.0) * x - 4.0) * a : 0.0;
}

std::vector<Taps> bicubic_taps(std::int64_t from, std::int64_t to) {
  const double scale = static_cast<double>(from) / static_cast<double>(to), stretch = std::max(1.0, scale), support = 2.0 * stretch;
  std::vector<Taps> out;
  for (std::int64_t i = 0; i < to; ++i) {
    const double centre = scale * (static_cast<double>(i) + 0.5);
    const auto begin = std::max<std::int64_t>(0, static_cast<std::int64_t>(centre - support + 0.5));
    const auto end = std::min<std::int64_t>(from, static_cast<std::int64_t>(centre + support + 0.5));
    Taps taps{begin, {}};
    double total = 0.0;
    for (std::int64_t k = begin; k < end; ++k) {
      taps.weights.push_back(cubic((static_cast<double>(k) - centre + 0.5) / stretch));
      total += taps.weights.back();
    }
    for (double& w : taps.weights) w /= total;
    out.push_back(std::move(taps));
  }
  return out;
}

std::vector<Taps> linear_taps(std::int64_t from, std::int64_t to) {
  const double scale = static_cast<double>(from) / static_cast<double>(to);
  std::vector<Taps> out;
  for (std::int64_t i = 0; i < to; ++i) {
    const double at = std::max(0.0, scale * (static_cast<double>(i) + 0.5) - 0.5);
    const auto low = std::min<std::int64_t>(from - 1, static_cast<std::int64_t>(at));
    const double part = at - static_cast<double>(low);
    out.push_back(low + 1 < from ? Taps{low, {1.0 - part, part}} : Taps{low, {1.0}});
  }
  return out;
}

// Along the middle dimension: (outer, taps' source, inner) -> (outer, taps.size(), inner)
std::vector<double> apply(const std::vector<Taps>& taps, const std::vector<double>& x, std::size_t outer, std::size_t length,
                          std::size_t inner) {
  std::vector<double> y(outer * taps.size() * inner, 0.0);
  for (std::size_t o = 0; o < outer; ++o) {
    for (std::size_t i = 0; i < taps.size(); ++i) {
      double* to = y.data() + (o * taps.size() + i) * inner;
      for (std::size_t k = 0; k < taps[i].weights.size(); ++k) {
        const double* from = x.data() + (o * length + static_cast<std::size_t>(taps[i].begin) + k) * inner;
        for (std::size_t c = 0; c < inner; ++c) to[c] += taps[i].weights[k] * from[c];
      }
    }
  }
  return y;
}

}  // namespace

Tensor resize_grid_positions(const Tensor& positions, std::int64_t extra, std::int64_t grid) {
  const NoGrad guard;
  const std::int64_t width = positions.size(1), places = positions.size(0) - extra;
  const auto old = static_cast<std::int64_t>(std::llround(std::sqrt(static_cast<double>(places))));
  check(old * old == places, "resize_grid_positions", "the positions must form a square", {{"positions", positions}});
  const std::vector<float> values = positions.to_vector();
  const auto skip = static_cast<std::size_t>(extra * width);
  std::vector<double> x(values.begin() + static_cast<std::ptrdiff_t>(skip), values.end());
  const std::vector<Taps> taps = bicubic_taps(old, grid);
  const auto n = static_cast<std::size_t>(old), w = static_cast<std::size_t>(width), g = static_cast<std::size_t>(grid);
  x = apply(taps, x, n, n, w);      // columns
  x = apply(taps, x, 1, n, g * w);  // rows
  std::vector<float> out(values.begin(), values.begin() + static_cast<std::ptrdiff_t>(skip));
  for (const double v : x) out.push_back(static_cast<float>(v));
  return from_vector(out, {extra + grid * grid, width});
}

Tensor resize_text_positions(const Tensor& positions, std::int64_t length) {
  const NoGrad guard;
  const std::int64_t width = positions.size(1);
  const std::vector<float> values = positions.to_vector();
  const std::vector<double> x = apply(linear_taps(positions.size(0), length), {values.begin(), values.end()}, 1,
                                      static_cast<std::size_t>(positions.size(0)), static_cast<std::size_t>(width));
  return from_vector(std::vector<float>(x.begin(), x.end()), {length, width});
}

}  // namespace twinlens
