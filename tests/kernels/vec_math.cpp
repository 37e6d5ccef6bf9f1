// Errors of the elementary functions against double precision, in units of the last place of the result (docs/numerics.md has the bounds).
#include "tests/kernels/vec_math.h"

#include <catch2/catch.hpp>
#include <cmath>
#include <cstring>
#include <limits>
#include <string>
#include <utility>
#include <vector>

#include "tests/kernels/every_set.h"

#include "twinlens/kernels/unary.h"

namespace twinlens::test {
namespace {

constexpr double kInf = std::numeric_limits<double>::infinity();

struct Function {
  const char* name;
  MathFunction function;
  double (*exact)(double);
  double low, high;          // where the bound holds
  double bound, mean_bound;  // of the largest and of the root mean square error, in units of the last place
  // What is exact beside: the units are those of the larger one. A difference is 0 somewhere.
  double (*beside)(double) = [](double) { return 0.0; };
};

double tail_of(double x) { return 0.5 * std::erfc(std::abs(x) / std::sqrt(2.0)); }
double density_of(double x) { return std::exp(-0.5 * x * x) / std::sqrt(2.0 * M_PI); }

const Function kFunctions[] = {
    {"exp", MathFunction::exp, [](double x) { return std::exp(x); }, -87.33, 88.72, 1.25, 0.25},
    {"exp_nonpositive", MathFunction::exp_nonpositive, [](double x) { return std::exp(x); }, -86.59, 0.0, 1.25, 0.25},
    {"log", MathFunction::log, [](double x) { return std::log(x); }, 0x1p-126, 3.4e38, 1.00, 0.31},
    {"log1p", MathFunction::log1p, [](double x) { return std::log1p(x); }, 0.0, 3.4e38, 3.00, 0.35},
    {"log1p_exp_neg_abs", MathFunction::log1p_exp_neg_abs, [](double x) { return std::log1p(std::exp(-std::abs(x))); }, -87.0, 87.0, 4.00,
     0.40},
    {"sigmoid", MathFunction::sigmoid, [](double x) { return 1.0 / (1.0 + std::exp(-x)); }, -87.0, 100.0, 4.00, 0.40},
    {"sigmoid_rest", MathFunction::sigmoid_rest, [](double x) { return 1.0 / (1.0 + std::exp(x)); }, -87.0, 87.0, 6.00, 0.40},
    {"tanh", MathFunction::tanh, [](double x) { return std::tanh(x); }, -100.0, 100.0, 2.00, 0.25},
    {"density", MathFunction::density, density_of, -13.1, 13.1, 4.00, 0.60},
    {"tail", MathFunction::tail, tail_of, -13.0, 13.0, 8.00, 1.00},
    {"gelu_loss", MathFunction::gelu_loss, [](double x) { return x * tail_of(x); }, 0.0, 13.0, 8.00, 1.00},
    {"gelu_slope_loss", MathFunction::gelu_slope_loss, [](double x) { return tail_of(x) - x * density_of(x); }, 0.0, 13.0, 8.00, 1.00,
     tail_of},
};

// Every 4099th float of the range, signs and exponents alike, and a fine grid of the part around 0.
std::vector<float> arguments(const Function& f) {
  std::vector<float> x;
  for (std::uint64_t bits = 0; bits < 0x1'0000'0000ULL; bits += 4099) {
    const auto word = static_cast<std::uint32_t>(bits);
    float v = 0.0F;
    std::memcpy(&v, &word, sizeof v);
    const bool normal = std::fpclassify(v) == FP_NORMAL || v == 0.0F;
    if (normal && static_cast<double>(v) >= f.low && static_cast<double>(v) <= f.high) x.push_back(v);
  }
  const double low = std::max(f.low, -20.0), high = std::min(f.high, 20.0);
  for (int i = 0; i <= 200'000; ++i) x.push_back(static_cast<float>(low + (high - low) * i / 200'000.0));
  return x;
}

std::vector<float> values(MathFunction function, const std::vector<float>& x) {
  std::vector<float> y(x.size());
  run(current_stream(kCpu), VecMath{function, x.data(), y.data(), static_cast<std::int64_t>(x.size())});
  return y;
}

// The distance of neighbouring floats at x; results below the normal numbers are not promised.
double unit_of(double x) { return std::ldexp(1.0, std::max(std::ilogb(x), -126) - 23); }

TEST_CASE("elementary functions keep to their bounds", "[math]") {
  for (const Function& f : kFunctions) {
    INFO(f.name);
    const std::vector<float> x = arguments(f);
    std::vector<double> exact, unit;
    for (const float v : x) {
      exact.push_back(f.exact(static_cast<double>(v)));
      unit.push_back(unit_of(std::max(std::abs(exact.back()), f.beside(static_cast<double>(v)))));
    }
    on_every_set([&] {
      const std::vector<float> y = values(f.function, x);
      double worst = 0.0, squares = 0.0;
      float at = 0.0F;
      for (std::size_t i = 0; i < x.size(); ++i) {
        const double error = exact[i] == 0.0 ? (y[i] == 0.0F ? 0.0 : kInf) : std::abs(static_cast<double>(y[i]) - exact[i]) / unit[i];
        squares += error * error;
        if (!(error <= worst)) {
          worst = error;
          at = x[i];
        }
      }
      INFO("worst at " << at);
      CHECK(worst <= f.bound);
      const double mean = std::sqrt(squares / static_cast<double>(x.size()));
      CHECK(mean <= f.mean_bound);
    });
  }
}

// Some take another way when a lane of the register asks for it; the lanes beside it must not notice.
TEST_CASE("elementary functions do not depend on the neighbouring lanes", "[math]") {
  std::vector<float> mixed;
  for (int i = 0; i < 4096; ++i) mixed.push_back(static_cast<float>(i * 1237 % 4096) * 0x1p-8F);  // 0 to 16, in no order
  for (const MathFunction function : {MathFunction::gelu_loss, MathFunction::gelu_slope_loss}) {
    on_every_set([&] {
      const std::vector<float> y = values(function, mixed);
      for (std::size_t i = 0; i < mixed.size(); ++i) {
        INFO("at " << mixed[i]);
        REQUIRE(values(function, std::vector<float>(16, mixed[i]))[7] == y[i]);
      }
    });
  }
}

TEST_CASE("elementary functions at the ends", "[math]") {
  constexpr float inf = std::numeric_limits<float>::infinity(), nan = std::numeric_limits<float>::quiet_NaN();
  struct End {
    MathFunction function;
    float x, y;
  };
  const End ends[] = {
      {MathFunction::exp, 0.0F, 1.0F},
      {MathFunction::exp, -inf, 0.0F},
      {MathFunction::exp, inf, inf},
      {MathFunction::exp, 89.0F, inf},
      {MathFunction::exp, 3.4e38F, inf},
      {MathFunction::exp, -3.4e38F, 0.0F},
      {MathFunction::exp, -87.3366F, 0.0F},
      {MathFunction::exp, nan, nan},
      {MathFunction::exp_nonpositive, -0.0F, 1.0F},
      {MathFunction::exp_nonpositive, -inf, 0},
      {MathFunction::exp_nonpositive, -3.4e38F, 0},
      {MathFunction::exp_nonpositive, -87.3366F, 0},
      {MathFunction::exp_nonpositive, nan, nan},
      {MathFunction::log, 1.0F, 0.0F},
      {MathFunction::log, 0.0F, -inf},
      {MathFunction::log, inf, inf},
      {MathFunction::log, -1.0F, nan},
      {MathFunction::log, nan, nan},
      {MathFunction::log1p, inf, inf},
      {MathFunction::log1p, 0.0F, 0.0F},
      {MathFunction::sigmoid, -inf, 0.0F},
      {MathFunction::sigmoid, inf, 1.0F},
      {MathFunction::sigmoid, nan, nan},
      {MathFunction::sigmoid_rest, 3.0e38F, 0.0F},
      {MathFunction::sigmoid_rest, nan, nan},
      {MathFunction::tanh, inf, 1.0F},
      {MathFunction::tanh, -inf, -1.0F},
      {MathFunction::tanh, nan, nan},
      {MathFunction::density, inf, 0.0F},
      {MathFunction::tail, -inf, 0.0F},
      {MathFunction::tail, nan, nan},
      {MathFunction::gelu_loss, 0.0F, 0.0F},
      {MathFunction::gelu_loss, inf, 0.0F},
      {MathFunction::gelu_loss, nan, nan},
      {MathFunction::gelu_slope_loss, 0.0F, 0.5F},
      {MathFunction::gelu_slope_loss, inf, 0.0F},
      {MathFunction::gelu_slope_loss, nan, nan},
  };
  on_every_set([&] {
    for (const End& end : ends) {
      INFO("function " << static_cast<int>(end.function) << " of " << end.x);
      const float y = values(end.function, {end.x})[0];
      if (std::isnan(end.y)) {
        CHECK(std::isnan(y));
      } else {
        CHECK(y == end.y);
      }
    }
  });
}

// Sets that take several registers at a time round all of them at once, where no lane is NaN.
TEST_CASE("a NaN in bf16 stays NaN, and in its place", "[math]") {
  constexpr std::size_t count = 67;
  std::vector<bf16> x(count), plain(count), y(count);
  for (std::size_t i = 0; i < count; ++i) x[i].bits = static_cast<std::uint16_t>((i % 2 << 15) + 0x3E00 + 7 * i);
  const auto run_gelu = [&](std::vector<bf16>& out) {
    const auto n = static_cast<std::int64_t>(count);
    run(current_stream(kCpu), UnaryForward{UnaryFunction::gelu, {x.data(), DType::bf16, n}, {out.data(), DType::bf16, n}});
  };
  on_every_set([&] {
    run_gelu(plain);
    for (std::size_t lane = 0; lane < count; ++lane) {
      for (const std::uint16_t nan : {std::uint16_t{0x7F81}, std::uint16_t{0xFFFF}}) {
        const bf16 kept = std::exchange(x[lane], bf16{nan});
        run_gelu(y);
        x[lane] = kept;
        for (std::size_t i = 0; i < count; ++i) {
          INFO("NaN in lane " << lane << ", lane " << i);
          if (i == lane) {
            CHECK((y[i].bits & 0x7FFF) > 0x7F80);
          } else {
            CHECK(y[i].bits == plain[i].bits);
          }
        }
      }
    }
  });
}

}  // namespace
}  // namespace twinlens::test
