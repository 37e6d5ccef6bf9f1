// The streamed losses against double precision on the same f32 features, over sizes, scales and how well the pairs match: the study behind
// the bounds of docs/numerics.md. And what the op cases do not ask: bits, memory, identities.

#include <algorithm>
#include <catch2/catch.hpp>
#include <cmath>
#include <random>

#include "twinlens/core/autograd.h"
#include "twinlens/core/ops.h"
#include "twinlens/core/random.h"
#include "twinlens/kernels/error.h"
#include "twinlens/kernels/memory.h"
#include "twinlens/kernels/parallel.h"

namespace twinlens {
namespace {

struct Study {
  std::int64_t n, d;
  double cosine;  // about, of own pairs
  double scale;
};

struct Features {
  std::vector<float> u, v;
  float logit_scale;
};

void normalize(std::vector<double>& x, std::int64_t d) {
  for (std::size_t i = 0; i < x.size(); i += static_cast<std::size_t>(d)) {
    double square = 0.0;
    for (std::int64_t k = 0; k < d; ++k) square += x[i + static_cast<std::size_t>(k)] * x[i + static_cast<std::size_t>(k)];
    for (std::int64_t k = 0; k < d; ++k) x[i + static_cast<std::size_t>(k)] /= std::sqrt(square);
  }
}

Features features_of(const Study& s) {
  std::mt19937_64 generator(static_cast<std::uint64_t>(s.n * 1000 + s.d));
  std::normal_distribution<double> normal;
  std::vector<double> v(static_cast<std::size_t>(s.n * s.d)), noise(v.size());
  for (double& x : v) x = normal(generator);
  for (double& x : noise) x = normal(generator);
  normalize(v, s.d);
  normalize(noise, s.d);
  std::vector<double> u(v.size());
  const double other = std::sqrt(1.0 - s.cosine * s.cosine);
  for (std::size_t i = 0; i < u.size(); ++i) u[i] = s.cosine * v[i] + other * noise[i];
  normalize(u, s.d);
  return {std::vector<float>(u.begin(), u.end()), std::vector<float>(v.begin(), v.end()), static_cast<float>(std::log(s.scale))};
}

struct Truth {
  double loss = 0.0, dscale = 0.0;
  std::vector<double> du, dv;
};

// Loss and gradients in double. Statistics relative to the own pair, as in the kernel: near a perfect match the textbook form has no
// digits left even in double.
Truth truth_of(const Study& s, const Features& f) {
  const auto n = static_cast<std::size_t>(s.n), d = static_cast<std::size_t>(s.d);
  const double scale = std::exp(static_cast<double>(f.logit_scale));
  std::vector<double> logits(n * n, 0.0), turned(d * n);
  for (std::size_t j = 0; j < n; ++j) {
    for (std::size_t k = 0; k < d; ++k) turned[k * n + j] = static_cast<double>(f.v[j * d + k]);
  }
  for (std::size_t i = 0; i < n; ++i) {
    for (std::size_t k = 0; k < d; ++k) {
      const double x = scale * static_cast<double>(f.u[i * d + k]);
      for (std::size_t j = 0; j < n; ++j) logits[i * n + j] += x * turned[k * n + j];
    }
  }
  std::vector<double> row_max(n, 0.0), column_max(n, 0.0), row_sum(n, 0.0), column_sum(n, 0.0);  // of others
  for (std::size_t i = 0; i < n; ++i) {
    for (std::size_t j = 0; j < n; ++j) {
      row_max[i] = std::max(row_max[i], logits[i * n + j] - logits[i * n + i]);
      column_max[j] = std::max(column_max[j], logits[i * n + j] - logits[j * n + j]);
    }
  }
  for (std::size_t i = 0; i < n; ++i) {
    for (std::size_t j = 0; j < n; ++j) {
      if (i == j) continue;
      row_sum[i] += std::exp(logits[i * n + j] - logits[i * n + i] - row_max[i]);
      column_sum[j] += std::exp(logits[i * n + j] - logits[j * n + j] - column_max[j]);
    }
  }
  Truth t;
  const auto loss = [](double max, double sum) { return max == 0.0 ? std::log1p(sum) : max + std::log(sum + std::exp(-max)); };
  std::vector<double> row_loss(n), column_loss(n);
  for (std::size_t i = 0; i < n; ++i) {
    row_loss[i] = loss(row_max[i], row_sum[i]);
    column_loss[i] = loss(column_max[i], column_sum[i]);
    t.loss += (row_loss[i] + column_loss[i]) / (2.0 * static_cast<double>(n));
  }
  t.du.assign(n * d, 0.0);
  t.dv.assign(n * d, 0.0);
  for (std::size_t i = 0; i < n; ++i) {
    for (std::size_t j = 0; j < n; ++j) {
      const double x = logits[i * n + j];
      double g = std::exp(x - logits[i * n + i] - row_loss[i]) + std::exp(x - logits[j * n + j] - column_loss[j]);
      if (i == j) g = std::expm1(-row_loss[i]) + std::expm1(-column_loss[j]);
      g /= 2.0 * static_cast<double>(n);
      for (std::size_t k = 0; k < d; ++k) {
        t.du[i * d + k] += scale * g * static_cast<double>(f.v[j * d + k]);
        t.dv[j * d + k] += scale * g * static_cast<double>(f.u[i * d + k]);
      }
    }
  }
  t.dscale = 0.0;
  for (std::size_t i = 0; i < n * d; ++i) t.dscale += static_cast<double>(f.u[i]) * t.du[i];
  return t;
}

struct Result {
  double loss, dscale;
  std::vector<float> du, dv;
};

Result result_of(const Study& s, const Features& f) {
  Tensor u = from_vector(f.u, {s.n, s.d}), v = from_vector(f.v, {s.n, s.d}), t = scalar(f.logit_scale);
  for (Tensor* x : {&u, &v, &t}) x->set_requires_grad(true);
  const Tensor loss = info_nce(u, v, t);
  backward(loss);
  return {static_cast<double>(loss.item()), static_cast<double>(t.grad().item()), u.grad().to_vector(), v.grad().to_vector()};
}

double distance(const std::vector<float>& got, const std::vector<double>& want) {
  double sum = 0.0;
  for (std::size_t i = 0; i < want.size(); ++i) sum += (static_cast<double>(got[i]) - want[i]) * (static_cast<double>(got[i]) - want[i]);
  return std::sqrt(sum);
}
double norm(const std::vector<double>& x) {
  double sum = 0.0;
  for (const double v : x) sum += v * v;
  return std::sqrt(sum);
}

// How much of each bound is used; above 1 it is broken.
struct Shares {
  double loss = 0.0, gradients = 0.0, scale = 0.0;
};

Shares check_study(const Study& s) {
  INFO("N = " << s.n << ", d = " << s.d << ", cosine of own pairs " << s.cosine << ", scale " << s.scale);
  const Features f = features_of(s);
  const Truth want = truth_of(s, f);
  const Result got = result_of(s, f);
  const double factor = std::max(1.0, s.scale / 10.0) * 1e-5;
  Shares shares;
  shares.loss = std::abs(got.loss - want.loss) / (1e-6 * std::max(1.0, want.loss));
  shares.gradients =
      std::max(distance(got.du, want.du) / (factor * norm(want.du) + 1e-9), distance(got.dv, want.dv) / (factor * norm(want.dv) + 1e-9));
  shares.scale = std::abs(got.dscale - want.dscale) / (factor * std::abs(want.dscale) + 1e-6 * factor * s.scale + 1e-9);
  INFO("loss " << got.loss << " and " << want.loss << "; gradients' share of their bound " << shares.gradients);
  CHECK(shares.loss <= 1.0);
  CHECK(shares.gradients <= 1.0);
  CHECK(shares.scale <= 1.0);
  return shares;
}

void check_studies(const std::vector<std::int64_t>& sizes, std::int64_t d, const std::string& report) {
  Shares worst;
  for (const std::int64_t n : sizes) {
    for (const double cosine : {0.0, 0.5, 0.999}) {
      for (const double scale : {1.0, 14.3, 100.0}) {
        const Shares s = check_study({n, d, cosine, scale});
        worst = {std::max(worst.loss, s.loss), std::max(worst.gradients, s.gradients), std::max(worst.scale, s.scale)};
      }
    }
  }
  WARN(report << ": the most of the bounds that was used: loss " << worst.loss << ", gradients " << worst.gradients << ", scale "
              << worst.scale);
}

TEST_CASE("InfoNCE in tiles follows double precision for every size, scale and match", "[info_nce]") {
  check_studies({1, 2, 3, 17, 64, 257}, 64, "d = 64");
  check_studies({2, 5, 129}, 512, "d = 512");
}

TEST_CASE("InfoNCE in tiles follows double precision for batches of several blocks", "[info_nce]") {
  check_studies({1031}, 64, "d = 64");
  check_studies({513}, 512, "d = 512");
}

TEST_CASE("InfoNCE in tiles follows double precision for large batches", "[info_nce][.full]") {
  check_studies({2049, 4097, 8191, 8192}, 64, "d = 64, large");
  check_studies({2047, 4096}, 512, "d = 512, large");
}

TEST_CASE("InfoNCE of one pair is exactly zero, and so are its gradients", "[info_nce]") {
  for (const double scale : {1.0, 100.0}) {
    const Study s{1, 33, 0.3, scale};
    const Result r = result_of(s, features_of(s));
    CHECK(r.loss == 0.0);
    CHECK(r.dscale == 0.0);
    CHECK(std::all_of(r.du.begin(), r.du.end(), [](float x) { return x == 0.0F; }));
    CHECK(std::all_of(r.dv.begin(), r.dv.end(), [](float x) { return x == 0.0F; }));
  }
}

TEST_CASE("InfoNCE has the same bits for any number of threads", "[info_nce]") {
  const int before = thread_count();
  const Study s{1500, 40, 0.5, 14.3};
  const Features f = features_of(s);
  set_thread_count(1);
  const Result one = result_of(s, f);
  for (const int threads : {2, 3, 7}) {
    set_thread_count(threads);
    const Result many = result_of(s, f);
    CHECK(many.loss == one.loss);
    CHECK(many.dscale == one.dscale);
    CHECK(many.du == one.du);
    CHECK(many.dv == one.dv);
  }
  set_thread_count(before);
}

TEST_CASE("the streamed losses take memory for a few tiles, not for all logits", "[info_nce]") {
  const Study s{6000, 16, 0.5, 14.3};  // 144 MB of logits
  const Features f = features_of(s);
  Tensor u = from_vector(f.u, {s.n, s.d}), v = from_vector(f.v, {s.n, s.d}), t = scalar(f.logit_scale), bias = scalar(-10.0F);
  for (Tensor* x : {&u, &v, &t, &bias}) x->set_requires_grad(true);
  for (const bool sigmoid : {false, true}) {
    reset_peak_memory(kCpu);
    const std::size_t before = memory_report(kCpu).bytes;
    backward(sigmoid ? sigmoid_loss(u, v, t, bias) : info_nce(u, v, t));
    CHECK(memory_report(kCpu).peak_bytes - before < 36'000'000);
  }
}

TEST_CASE("features that send their gradient elsewhere are features like others", "[info_nce]") {
  const Study s{24, 8, 0.2, 5.0};
  const Features f = features_of(s);
  const Tensor t = scalar(f.logit_scale), bias = scalar(-3.0F);
  for (const bool sigmoid : {false, true}) {
    Tensor u = from_vector(f.u, {s.n, s.d}), master = from_vector(f.u, {s.n, s.d}), v = from_vector(f.v, {s.n, s.d});
    for (Tensor* x : {&u, &master}) x->set_requires_grad(true);
    Tensor shadow = master.detach().clone();
    share_gradient(shadow, master);
    const auto loss = [&](const Tensor& rows) { return sigmoid ? sigmoid_loss(rows, v, t, bias) : info_nce(rows, v, t); };
    backward(loss(u));
    backward(loss(shadow));
    CHECK(master.grad().to_vector() == u.grad().to_vector());
  }
}

TEST_CASE("InfoNCE notices that what it computed does not fit together", "[info_nce]") {
  const Study s{64, 16, 0.2, 14.3};
  const Features f = features_of(s);
  Tensor u = from_vector(f.u, {s.n, s.d}), v = from_vector(f.v, {s.n, s.d}), t = scalar(f.logit_scale);
  u.set_requires_grad(true);
  const Tensor loss = info_nce(u, v, t);
  static_cast<float*>(v.raw())[5] += 3.0F;  // behind the tape's back
  CHECK_THROWS_AS(backward(loss), NumericError);
  CHECK_THROWS_WITH(([&] {
                      const Tensor again = info_nce(u, v, t);
                      static_cast<float*>(v.raw())[6] -= 3.0F;
                      backward(again);
                    })(),
                    Catch::Contains("info_nce: the sum of the logits' gradient") && Catch::Contains("--no-stream-loss"));
}

TEST_CASE("InfoNCE gives only the gradients that are wanted", "[info_nce]") {
  const Study s{40, 16, 0.2, 14.3};
  const Features f = features_of(s);
  const Result all = result_of(s, f);
  Tensor u = from_vector(f.u, {s.n, s.d}), v = from_vector(f.v, {s.n, s.d}), t = scalar(f.logit_scale);
  v.set_requires_grad(true);
  backward(affine(info_nce(u, v, t), 2.0, 0.0));
  CHECK_FALSE(u.grad().defined());
  const std::vector<float> dv = v.grad().to_vector();
  for (std::size_t i = 0; i < dv.size(); ++i) CHECK(dv[i] == 2.0F * all.dv[i]);
}

TEST_CASE("65,536 pairs of width 512 take under 1 GB beside their features", "[info_nce][.full]") {
  constexpr std::int64_t kPairs = 65'536, kWidth = 512;
  Tensor u = empty({kPairs, kWidth}), v = empty({kPairs, kWidth}), t = scalar(2.6592F);
  normal_(u, 0.0, 1.0, 1, 1);
  normal_(v, 0.0, 1.0, 1, 2);
  u = l2_normalize(u);
  v = l2_normalize(v);
  for (Tensor* x : {&u, &v, &t}) x->set_requires_grad(true);
  reset_peak_memory(kCpu);
  const std::size_t before = memory_report(kCpu).bytes;
  const Tensor loss = info_nce(u, v, t);
  backward(loss);
  const std::size_t extra = memory_report(kCpu).peak_bytes - before;
  WARN("loss " << loss.item() << " (ln N " << std::log(65536.0) << "), " << extra / 1'000'000 << " MB, of which the gradients are "
               << 2 * kPairs * kWidth * 4 / 1'000'000);
  CHECK(extra < 1'000'000'000);
  CHECK(loss.item() == Approx(std::log(65536.0)).epsilon(0.05));
}

}  // namespace
}  // namespace twinlens
