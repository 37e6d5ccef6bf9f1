// Random numbers as functions of names: what an op case cannot say about dropout, fills and permutations.

#include "twinlens/core/random.h"

#include <algorithm>
#include <catch2/catch.hpp>
#include <cmath>
#include <limits>

#include "tests/support/op_case.h"

#include "twinlens/core/autograd.h"
#include "twinlens/core/ops.h"
#include "twinlens/kernels/error.h"
#include "twinlens/kernels/isa.h"
#include "twinlens/kernels/memory.h"
#include "twinlens/kernels/parallel.h"

namespace twinlens {
namespace {

std::vector<float> normals(std::int64_t n, double mean, double deviation, std::uint64_t seed, std::uint64_t site) {
  Tensor x = empty({n});
  normal_(x, mean, deviation, seed, site);
  return x.to_vector();
}

std::vector<float> uniforms(std::int64_t n, double low, double high, std::uint64_t seed, std::uint64_t site) {
  Tensor x = empty({n});
  uniform_(x, low, high, seed, site);
  return x.to_vector();
}

// Kolmogorov's distance between numbers and a distribution, times sqrt(n): above 1.95 in one of 1000 draws.
template <class F>
double kolmogorov(std::vector<float> x, F distribution) {
  std::sort(x.begin(), x.end());
  const auto n = static_cast<double>(x.size());
  double distance = 0.0;
  for (std::size_t i = 0; i < x.size(); ++i) {
    const double p = distribution(static_cast<double>(x[i])), at = static_cast<double>(i);
    distance = std::max({distance, (at + 1.0) / n - p, p - at / n});
  }
  return distance * std::sqrt(n);
}

double correlation(const std::vector<float>& x, std::size_t lag, double mean, double variance) {
  double sum = 0.0;
  for (std::size_t i = 0; i + lag < x.size(); ++i) sum += (static_cast<double>(x[i]) - mean) * (static_cast<double>(x[i + lag]) - mean);
  return sum / variance / static_cast<double>(x.size() - lag);
}

constexpr std::int64_t kMany = 200'001;

TEST_CASE("normal numbers have their distribution and no memory", "[random]") {
  const std::vector<float> x = normals(kMany, 1.5, 0.25, 3, 4);
  CHECK(kolmogorov(x, [](double v) { return 0.5 * std::erfc(-(v - 1.5) / 0.25 / std::sqrt(2.0)); }) < 1.95);
  for (const std::size_t lag : {1U, 2U, 3U, 4U, 8U}) CHECK(std::abs(correlation(x, lag, 1.5, 0.0625)) * std::sqrt(kMany) < 4.0);
  double fourth = 0.0;
  for (const float v : x) fourth += std::pow((static_cast<double>(v) - 1.5) / 0.25, 4.0) / kMany;
  CHECK(std::abs(fourth - 3.0) < 4.0 * std::sqrt(96.0 / kMany));
}

TEST_CASE("uniform numbers have their distribution, no memory, and stay below the upper bound", "[random]") {
  const std::vector<float> x = uniforms(kMany, -2.0, 3.0, 3, 4);
  CHECK(kolmogorov(x, [](double v) { return (v + 2.0) / 5.0; }) < 1.95);
  for (const std::size_t lag : {1U, 2U, 3U, 4U, 8U}) CHECK(std::abs(correlation(x, lag, 0.5, 25.0 / 12.0)) * std::sqrt(kMany) < 4.0);
  // Four floats lie in this range: an eighth of the real numbers in it are nearest to its end, which does not belong to it.
  const double high = 1.0 + 4.0 * static_cast<double>(std::numeric_limits<float>::epsilon());
  const std::vector<float> narrow = uniforms(1001, 1.0, high, 3, 4);
  CHECK(static_cast<double>(*std::max_element(narrow.begin(), narrow.end())) < high);
  CHECK(*std::min_element(narrow.begin(), narrow.end()) == 1.0F);
}

TEST_CASE("a fill is a function of seed, site and index", "[random]") {
  for (const auto fill : {normals, uniforms}) {
    const std::vector<float> all = fill(8193, 0.0, 1.0, 3, 4);
    CHECK(fill(8193, 0.0, 1.0, 3, 4) == all);
    for (const std::int64_t n : {0, 1, 2, 3, 5, 4097}) CHECK(fill(n, 0.0, 1.0, 3, 4) == std::vector<float>(all.begin(), all.begin() + n));
    const std::vector<float> other_seed = fill(8193, 0.0, 1.0, 4, 4), other_site = fill(8193, 0.0, 1.0, 3, 5);
    for (const std::vector<float>* other : {&other_seed, &other_site}) {
      double product = 0.0, squares = 0.0;
      for (std::size_t i = 0; i < all.size(); ++i) {
        product += static_cast<double>(all[i]) * static_cast<double>((*other)[i]);
        squares += static_cast<double>(all[i]) * static_cast<double>(all[i]);
      }
      CHECK(product / squares < (fill == normals ? 0.05 : 0.8));  // uniform numbers have a mean: 1/4 over 1/3
    }
  }
}

TEST_CASE("a fill: threads, instruction sets, guard zones", "[random]") {
  const std::vector<float> want = normals(10'001, 0.5, 2.0, 9, 1);
  const int threads = thread_count();
  set_thread_count(threads == 1 ? 2 : 1);
  CHECK(normals(10'001, 0.5, 2.0, 9, 1) == want);
  set_thread_count(threads);
  Isa sets[5];
  const int count = available_isas(sets);
  const Isa best = active_isa();
  const std::int64_t violations = memory_guard_violations();
  set_memory_guards(true);
  for (int s = 0; s < count; ++s) {
    if (sets[s] > best) continue;
    set_active_isa(sets[s]);
    const std::vector<float> got = normals(10'001, 0.5, 2.0, 9, 1);
    CHECK(test::relative_error(got, std::vector<double>(want.begin(), want.end()), 0.0) <= 1e-7);
  }
  set_active_isa(best);
  set_memory_guards(false);
  CHECK(memory_guard_violations() == violations);
}

TEST_CASE("a fill on a card has the numbers of the CPU", "[random][cuda]") {
  if (cuda_device_count() == 0) return;  // kernels/device.cpp says why
  for (const std::int64_t n : {0, 1, 3, 10'001}) {
    for (const bool normal : {false, true}) {
      Tensor x = empty({n}, DType::f32, Device{DeviceType::cuda, 0});
      normal ? normal_(x, 0.5, 2.0, 9, 1) : uniform_(x, 0.5, 2.5, 9, 1);
      const std::vector<float> want = normal ? normals(n, 0.5, 2.0, 9, 1) : uniforms(n, 0.5, 2.5, 9, 1);
      CHECK(test::relative_error(x.to_vector(), std::vector<double>(want.begin(), want.end()), 0.0) <= 1e-7);
    }
  }
}

TEST_CASE("dropout drops a share p and keeps the mean", "[random]") {
  StepBlock block;
  block.seed = 11;
  const Tensor x = full({211, 1001}, 1.0);
  const auto n = static_cast<double>(x.count());
  for (const double p : {0.1, 0.5, 0.875}) {
    const std::vector<float> y = dropout(x, p, {&block, site_of("here")}).to_vector();
    double dropped = 0.0;
    for (const float v : y) {
      if (v == 0.0F) dropped += 1.0;
      REQUIRE((v == 0.0F || v == static_cast<float>(1.0 / (1.0 - p))));
    }
    CHECK(std::abs(dropped / n - p) < 4.0 * std::sqrt(p * (1.0 - p) / n));
    for (const std::size_t lag : {1U, 4U, 1001U}) CHECK(std::abs(correlation(y, lag, 1.0, p / (1.0 - p))) * std::sqrt(n) < 4.0);
  }
}

TEST_CASE("dropout: another step, seed or site is another mask; backward repeats that of forward", "[random]") {
  StepBlock block;
  Tensor x = full({40, 30}, 1.0);
  x.set_requires_grad(true);
  const auto mask = [&](std::uint64_t site) { return dropout(x.detach(), 0.5, {&block, site}).to_vector(); };
  const Tensor y = dropout(x, 0.5, {&block, 1});
  const std::vector<float> first = y.to_vector();
  CHECK(mask(1) == first);
  CHECK(mask(2) != first);
  block.step = 1;  // as it is when the next step has begun
  CHECK(mask(1) != first);
  backward(y, full({40, 30}, 1.0));
  CHECK(x.grad().to_vector() == first);
  block.step = 0;
  block.seed = 1;
  CHECK(mask(1) != first);
}

TEST_CASE("dropout: a row with an id draws the same numbers in any batch", "[random]") {
  StepBlock block;
  const Tensor x = full({6, 33}, 1.0);
  const auto ints = [](const std::vector<std::int64_t>& v) { return from_vector(v, {static_cast<std::int64_t>(v.size())}); };
  const std::vector<float> batch = dropout(x, 0.5, {&block, 1}, {ints({7, 7, 7, 9, 9, 8}), ints({0, 1, 2, 0, 1, 0})}).to_vector();
  const std::vector<float> alone = dropout(x.slice(0, 0, 2), 0.5, {&block, 1}, {ints({9, 7}), ints({1, 2})}).to_vector();
  CHECK(std::equal(alone.begin(), alone.begin() + 33, batch.begin() + 4 * 33));
  CHECK(std::equal(alone.begin() + 33, alone.end(), batch.begin() + 2 * 33));
  CHECK_FALSE(std::equal(batch.begin(), batch.begin() + 33, batch.begin() + 33));
}

TEST_CASE("sample draws every index as often as its weight says", "[random]") {
  StepBlock block;
  const std::vector<float> weights{0.5F, 0.0F, 3.0F, 0.125F, 1.375F, 0.0F};
  constexpr std::int64_t kRows = 40'000;
  const Tensor rows = dense(from_vector(weights, {1, 6}).expand({kRows, 6}));
  for (const bool logits : {false, true}) {
    const RandomKey key{&block, site_of(logits ? "logits" : "weights")};
    const std::vector<std::int64_t> drawn = (logits ? sample_logits(log(rows), key) : sample(rows, key)).to_ints();
    double chi2 = 0.0;
    for (std::size_t i = 0; i < weights.size(); ++i) {
      const auto times = static_cast<double>(std::count(drawn.begin(), drawn.end(), static_cast<std::int64_t>(i)));
      const double expected = kRows * static_cast<double>(weights[i]) / 5.0;
      if (expected == 0.0) CHECK(times == 0.0);
      if (expected > 0.0) chi2 += (times - expected) * (times - expected) / expected;
    }
    CHECK(chi2 < 16.3);  // three degrees of freedom: above it in one of 1000 draws
  }
}

TEST_CASE("a permutation holds every index once and another round is another order", "[random]") {
  for (const std::int64_t n : {1, 2, 3, 5, 64, 1000, 4097}) {
    std::vector<std::int64_t> order;
    const Permutation permutation(n, 5, 0);
    for (std::int64_t i = 0; i < n; ++i) order.push_back(permutation(i));
    std::vector<std::int64_t> sorted = order;
    std::sort(sorted.begin(), sorted.end());
    for (std::int64_t i = 0; i < n; ++i) REQUIRE(sorted[static_cast<std::size_t>(i)] == i);
    if (n < 64) continue;
    std::int64_t fixed = 0;
    const Permutation next(n, 5, 1);
    for (std::int64_t i = 0; i < n; ++i) fixed += next(i) == order[static_cast<std::size_t>(i)] ? 1 : 0;
    CHECK(fixed < 8);  // one on average
  }
}

TEST_CASE("a permutation of nothing has no elements", "[random]") {
  CHECK_THROWS_AS(Permutation(0, 5, 0)(0), ShapeError);
  CHECK_THROWS_AS(Permutation(3, 5, 0)(3), ShapeError);
  CHECK_THROWS_AS(Permutation(3, 5, 0)(-1), ShapeError);
  CHECK_THROWS_AS(Permutation(-1, 5, 0), ShapeError);
}

}  // namespace
}  // namespace twinlens
