// Elementwise functions of bf16 at every argument that there is, against double precision: some sets compute them roughly, as bf16 cannot
// show more, so what counts is how far from the exact result the rounded one lies (docs/numerics.md has the bounds).
#include <algorithm>
#include <catch2/catch.hpp>
#include <cmath>
#include <limits>
#include <string>
#include <vector>

#include "tests/kernels/bf16.h"
#include "tests/kernels/every_set.h"

#include "twinlens/kernels/unary.h"

namespace twinlens::test {
namespace {

double value_of(bf16 x) { return static_cast<double>(widened(x)); }

double logistic(double x) { return 1.0 / (1.0 + std::exp(-x)); }
double tail(double x) { return 0.5 * std::erfc(x / std::sqrt(2.0)); }
double density(double x) { return std::exp(-0.5 * x * x) / std::sqrt(2.0 * M_PI); }
double gated(double x, double k) { return x * logistic(k * x); }
double gated_slope(double x, double k) { return logistic(k * x) * (1.0 + k * x * logistic(-k * x)); }
double tanh_argument(double x) { return 2.0 * std::sqrt(2.0 / M_PI) * (x + 0.044715 * x * x * x); }
double tanh_argument_slope(double x) { return 2.0 * std::sqrt(2.0 / M_PI) * (1.0 + 3.0 * 0.044715 * x * x); }

struct Function {
  const char* name;
  UnaryFunction function;
  double (*value)(double);
  double (*slope)(double);   // of x
  double (*beside)(double);  // the slope passes through 0: its error is seen beside this, where that is larger
};

constexpr auto kNothing = [](double) { return 0.0; };
constexpr double kQuick = 1.702F;  // as it is in f32

const Function kFunctions[] = {
    {"sigmoid", UnaryFunction::sigmoid, logistic, nullptr, kNothing},
    {"silu", UnaryFunction::silu, [](double x) { return gated(x, 1.0); }, [](double x) { return gated_slope(x, 1.0); }, logistic},
    {"quick_gelu", UnaryFunction::quick_gelu, [](double x) { return gated(x, kQuick); }, [](double x) { return gated_slope(x, kQuick); },
     [](double x) { return logistic(kQuick * x); }},
    {"gelu", UnaryFunction::gelu, [](double x) { return x * tail(-x); }, [](double x) { return tail(-x) + x * density(x); },
     [](double x) { return tail(-x); }},
    {"gelu_tanh", UnaryFunction::gelu_tanh, [](double x) { return x * logistic(tanh_argument(x)); },
     [](double x) {
       const double u = tanh_argument(x);
       return logistic(u) * (1.0 + x * tanh_argument_slope(x) * logistic(-u));
     },
     [](double x) { return logistic(tanh_argument(x)); }},
    {"log_sigmoid", UnaryFunction::log_sigmoid, [](double x) { return std::min(x, 0.0) - std::log1p(std::exp(-std::abs(x))); },
     [](double x) { return logistic(-x); }, kNothing},
};

std::vector<bf16> all_finite() {
  std::vector<bf16> x;
  for (std::uint32_t bits = 0; bits < 0x10000; ++bits) {
    const bf16 v{static_cast<std::uint16_t>(bits)};
    const double d = value_of(v);
    if (std::isfinite(d) && (d == 0.0 || std::abs(d) >= 0x1p-126)) x.push_back(v);
  }
  return x;
}

std::vector<bf16> forward(UnaryFunction function, const std::vector<bf16>& x) {
  std::vector<bf16> y(x.size());
  const auto n = static_cast<std::int64_t>(x.size());
  run(current_stream(kCpu), UnaryForward{function, {x.data(), DType::bf16, n}, {y.data(), DType::bf16, n}});
  return y;
}

std::vector<bf16> slopes(UnaryFunction function, const std::vector<bf16>& x) {
  const std::vector<bf16> one(x.size(), bf16{0x3F80});
  std::vector<bf16> dx(x.size());
  const auto n = static_cast<std::int64_t>(x.size());
  run(current_stream(kCpu), UnaryBackward{function, {x.data(), DType::bf16, n}, {one.data(), DType::bf16, n}, {dx.data(), DType::bf16, n}});
  return dx;
}

// The largest distance in units of the last place of bf16. Exponentials below e^-87, which is almost the smallest normal number, may be 0.
template <class Exact, class Beside>
double worst_of(const std::vector<bf16>& x, const std::vector<bf16>& y, Exact&& exact, Beside&& beside, double& at) {
  double worst = 0.0;
  for (std::size_t i = 0; i < x.size(); ++i) {
    const double v = value_of(x[i]), truth = exact(v), error = std::abs(value_of(y[i]) - truth);
    if (error <= 0x1p-119 || (std::isinf(value_of(y[i])) && std::abs(truth) > 3.38e38)) continue;
    const double unit = std::ldexp(1.0, std::ilogb(std::max({std::abs(truth), beside(v), 0x1p-126})) - 7);
    if (!(error / unit <= worst)) {
      worst = error / unit;
      at = v;
    }
  }
  return worst;
}

constexpr double kBound = 0.60;  // half of it is the rounding

TEST_CASE("functions of bf16 are rounded to the nearest, but for a tenth of a unit", "[math]") {
  const std::vector<bf16> x = all_finite();
  REQUIRE(x.size() > 65000);
  for (const Function& f : kFunctions) {
    on_every_set([&] {
      double at = 0.0;
      const double worst = worst_of(x, forward(f.function, x), f.value, kNothing, at);
      INFO(f.name << " at " << at);
      CHECK(worst <= kBound);
      if (f.slope == nullptr) return;
      const double worst_slope = worst_of(x, slopes(f.function, x), f.slope, f.beside, at);
      INFO("the slope of " << f.name << " at " << at);
      CHECK(worst_slope <= kBound);
    });
  }
}

TEST_CASE("functions of bf16 at the ends", "[math]") {
  constexpr bf16 inf{0x7F80}, nan{0x7FC0}, minus_nan{0xFFC1};
  for (const Function& f : kFunctions) {
    INFO(f.name);
    on_every_set([&] {
      CHECK(std::isnan(value_of(forward(f.function, {nan})[0])));
      CHECK(std::isnan(value_of(forward(f.function, std::vector<bf16>(40, minus_nan))[39])));
      const bool bounded = f.function == UnaryFunction::sigmoid || f.function == UnaryFunction::log_sigmoid;
      CHECK(value_of(forward(f.function, {inf})[0]) == (bounded ? f.value(1e30) : std::numeric_limits<double>::infinity()));
      if (f.slope == nullptr) return;
      CHECK(std::isnan(value_of(slopes(f.function, {nan})[0])));
      CHECK(std::isnan(value_of(slopes(f.function, std::vector<bf16>(40, minus_nan))[39])));
    });
  }
}

// A set may take several registers at a time; what is behind the last of them comes out the same.
TEST_CASE("functions of bf16 do not depend on where an element stands", "[math]") {
  std::vector<bf16> x;
  for (std::size_t i = 0; i < 97; ++i) x.push_back(bf16{static_cast<std::uint16_t>((i % 2 << 15) + 0x3C00 + 17 * i)});
  for (const Function& f : kFunctions) {
    INFO(f.name);
    on_every_set([&] {
      const std::vector<bf16> y = forward(f.function, x), dx = slopes(f.function, x);
      for (std::size_t i = 0; i < x.size(); ++i) {
        INFO("element " << i);
        CHECK(forward(f.function, {x[i]})[0].bits == y[i].bits);
        CHECK(slopes(f.function, {x[i]})[0].bits == dx[i].bits);
      }
    });
  }
}

}  // namespace
}  // namespace twinlens::test
