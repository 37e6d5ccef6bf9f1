// What op cases cannot say: values at kinks, comparisons, NaN.

#include <catch2/catch.hpp>
#include <cmath>
#include <limits>

#include "twinlens/core/autograd.h"
#include "twinlens/core/ops.h"

namespace twinlens {
namespace {

constexpr float kNan = std::numeric_limits<float>::quiet_NaN();
constexpr float kInf = std::numeric_limits<float>::infinity();

Tensor leaf(const std::vector<float>& values) {
  Tensor x = from_vector(values, {static_cast<std::int64_t>(values.size())});
  x.set_requires_grad(true);
  return x;
}

std::vector<float> slope(Tensor (*f)(const Tensor&), const std::vector<float>& values) {
  const Tensor x = leaf(values);
  backward(sum(f(x)));
  return x.grad().to_vector();
}

TEST_CASE("maximum halves the gradient where its arguments are equal") {
  const Tensor a = leaf({1, 2, 3}), b = leaf({2, 2, 2});
  backward(sum(maximum(a, b)));
  CHECK(a.grad().to_vector() == std::vector<float>{0, 0.5F, 1});
  CHECK(b.grad().to_vector() == std::vector<float>{1, 0.5F, 0});
  const Tensor c = leaf({1, 2, 3});
  backward(sum(minimum(c, from_vector(std::vector<float>{2, 2, 2}, {3}))));
  CHECK(c.grad().to_vector() == std::vector<float>{1, 0.5F, 0});
}

TEST_CASE("slopes at kinks") {
  CHECK(slope(abs, {-1, 0, 2}) == std::vector<float>{-1, 0, 1});
  CHECK(slope(relu, {-1, 0, 2}) == std::vector<float>{0, 0, 1});
  CHECK(slope([](const Tensor& x) { return clamp(x, 0, 1); }, {-0.5F, 0, 1, 1.5F}) == std::vector<float>{0, 1, 1, 0});
}

TEST_CASE("NaN goes through elementwise functions") {
  const Tensor x = full({19}, kNan), one = full({19}, 1.0);
  for (const Tensor& y : {exp(x), log(x), tanh(x), sigmoid(x), log_sigmoid(x), relu(x), gelu(x), gelu_tanh(x), quick_gelu(x), silu(x),
                          clamp(x, 0, 1), maximum(x, one), maximum(one, x), minimum(x, one), minimum(one, x)}) {
    for (const float v : y.to_vector()) CHECK(std::isnan(v));
  }
}

TEST_CASE("functions at the ends of the range") {
  const Tensor x = from_vector(std::vector<float>{-kInf, -200, -0.0F, 0.0F, 200, kInf}, {6});
  CHECK(exp(x).to_vector() == std::vector<float>{0, 0, 1, 1, kInf, kInf});
  CHECK(tanh(x).to_vector() == std::vector<float>{-1, -1, 0, 0, 1, 1});
  CHECK(sigmoid(x).to_vector() == std::vector<float>{0, 0, 0.5F, 0.5F, 1, 1});
  CHECK(log(from_vector(std::vector<float>{0, 1, kInf}, {3})).to_vector() == std::vector<float>{-kInf, 0, kInf});
  CHECK(std::isnan(log(scalar(-1.0F)).item()));
  CHECK(std::signbit(neg(scalar(0.0F)).item()));
  const Tensor far = from_vector(std::vector<float>{-30, -1e30F, 30, 1e30F}, {4});
  for (const auto f : {gelu, gelu_tanh, silu, quick_gelu}) {
    const std::vector<float> y = f(far).to_vector(), s = slope(f, far.to_vector());
    CHECK((std::abs(y[0]) < 1e-11F && y[1] == 0 && y[2] == 30 && y[3] == 1e30F));
    CHECK((std::abs(s[0]) < 1e-11F && s[1] == 0 && s[2] == Approx(1) && s[3] == 1));
  }
}

TEST_CASE("comparisons of every dtype broadcast and give bool") {
  const Tensor a = from_vector(std::vector<std::int64_t>{0, 1, 2, 3}, {4, 1}), b = from_vector(std::vector<std::int64_t>{1, 2}, {2});
  for (const DType dtype : {DType::f32, DType::bf16, DType::f16, DType::i64, DType::i32, DType::u8}) {
    CHECK(equal(a.to(dtype), b.to(dtype)).to_ints() == std::vector<std::int64_t>{0, 0, 1, 0, 0, 1, 0, 0});
    CHECK(less(a.to(dtype), b.to(dtype)).to_ints() == std::vector<std::int64_t>{1, 1, 0, 1, 0, 0, 0, 0});
  }
  CHECK(equal(a.to(DType::boolean), b.to(DType::boolean)).to_ints() == std::vector<std::int64_t>{0, 0, 1, 1, 1, 1, 1, 1});
  const std::int64_t big = (std::int64_t{1} << 60) + 1;  // beyond the 53 bits of a double
  CHECK(less(full({}, 0, DType::i64), from_vector(std::vector<std::int64_t>{big}, {1})).to_ints() == std::vector<std::int64_t>{1});
  CHECK(equal(from_vector(std::vector<std::int64_t>{big - 1}, {1}), from_vector(std::vector<std::int64_t>{big}, {1})).to_ints()[0] == 0);
  const Tensor nan = full({3}, kNan);
  CHECK(equal(nan, nan).to_ints() == std::vector<std::int64_t>{0, 0, 0});
  CHECK(equal(a, b).dtype() == DType::boolean);
}

TEST_CASE("where moves elements of any dtype") {
  const Tensor mask = from_vector(std::vector<std::int64_t>{1, 0, 1}, {3}).to(DType::boolean);
  const Tensor a = from_vector(std::vector<std::int64_t>{1, 2, 3}, {3}), b = full({}, 9, DType::i64);
  for (const DType dtype : {DType::f32, DType::bf16, DType::f16, DType::i64, DType::i32, DType::u8}) {
    CHECK(where(mask, a.to(dtype), b.to(dtype)).to_ints() == std::vector<std::int64_t>{1, 9, 3});
  }
}

}  // namespace
}  // namespace twinlens
