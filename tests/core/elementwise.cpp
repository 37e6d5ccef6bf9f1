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

bool same(const std::vector<float>& a, const std::vector<float>& b) {
  if (a.size() != b.size()) return false;
  for (std::size_t i = 0; i < a.size(); ++i) {
    if (!(a[i] == b[i] || (std::isnan(a[i]) && std::isnan(b[i])))) return false;
  }
  return true;
}

// PyTorch's threshold_backward: where(x <= 0, 0, dy).
TEST_CASE("through a closed relu no gradient passes, not even infinity and NaN") {
  const std::vector<float> values{-1, -1, 0, 0, 2, 2, 2, kNan}, dy{kInf, kNan, -kInf, 3, kInf, kNan, 3, 3};
  const std::vector<float> dx{0, 0, 0, 0, kInf, kNan, 3, 3};
  for (const DType dtype : {DType::f32, DType::bf16}) {
    Tensor x = from_vector(values, {8, 1}).to(dtype).set_requires_grad(true);
    const Tensor upstream = from_vector(dy, {8, 1}).to(dtype);
    backward(relu(x), upstream);
    CHECK(same(x.grad().to_vector(), dx));
    // As the epilogue of a product with 1.
    const Tensor z = from_vector(values, {8, 1}).to(dtype).set_requires_grad(true);
    LinearOptions options;
    options.activation = Activation::relu;
    backward(linear(z, full({1, 1}, 1.0, dtype), {}, options), upstream);
    CHECK(same(z.grad().to_vector(), dx));
  }
}

// where(a == b, dy / 2, dy), 0 where the other is the larger: of NaN both have all.
TEST_CASE("maximum and minimum share infinite gradients and those of NaN as PyTorch does") {
  const std::vector<float> left{1, 3, 2, kNan, 1, kNan}, right{2, 2, 2, 1, kNan, kNan}, dy{kInf, kInf, 3, 3, 3, 3};
  const auto gradients = [&](Tensor (*f)(const Tensor&, const Tensor&)) {
    const Tensor a = leaf(left), b = leaf(right);
    backward(f(a, b), from_vector(dy, {6}));
    return std::pair{a.grad().to_vector(), b.grad().to_vector()};
  };
  const auto [max_a, max_b] = gradients(maximum);
  CHECK(same(max_a, {0, kInf, 1.5F, 3, 3, 3}));
  CHECK(same(max_b, {kInf, 0, 1.5F, 3, 3, 3}));
  const auto [min_a, min_b] = gradients(minimum);
  CHECK(same(min_a, {kInf, 0, 1.5F, 3, 3, 3}));
  CHECK(same(min_b, {0, kInf, 1.5F, 3, 3, 3}));
}

// torch.log_softmax of such a row is NaN throughout.
TEST_CASE("a logit of infinity makes NaN of the row's loss and gradient, whichever is the target") {
  for (const std::vector<float>& row : {std::vector<float>{1, kInf, 2}, std::vector<float>{-kInf, -kInf, -kInf}}) {
    for (std::int64_t target = 0; target < 3; ++target) {
      const Tensor x = from_vector(row, {1, 3}).set_requires_grad(true);
      const Tensor loss = cross_entropy(x, from_vector(std::vector<std::int64_t>{target}, {1}));
      CHECK(std::isnan(loss.item()));
      backward(loss);
      CHECK(same(x.grad().to_vector(), {kNan, kNan, kNan}));
    }
    for (const Tensor& y : {softmax(from_vector(row, {1, 3})), log_softmax(from_vector(row, {1, 3}))}) {
      CHECK(same(y.to_vector(), {kNan, kNan, kNan}));
    }
    const Tensor x = from_vector(row, {1, 3}).set_requires_grad(true);
    backward(soft_cross_entropy(x, from_vector(std::vector<float>{0.5F, 0.25F, 0.25F}, {1, 3})));
    CHECK(same(x.grad().to_vector(), {kNan, kNan, kNan}));
  }
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
    CHECK(slope(f, {-3e38F, 3e38F}) == std::vector<float>{0, 1});
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
