// f32 products in tile registers (kernels/cpu/gemm/split.h) against multiply-adds, which the switch gives, and against double precision.

#include <catch2/catch.hpp>
#include <cmath>
#include <limits>

#include "tests/support/op_case.h"
#include "tests/support/product_error.h"

#include "twinlens/core/ops.h"
#include "twinlens/kernels/isa.h"
#include "twinlens/kernels/matmul.h"

namespace twinlens {
namespace {

constexpr float kInfinity = std::numeric_limits<float>::infinity(), kNan = std::numeric_limits<float>::quiet_NaN();

bool has_tiles() {
  if (active_isa() == Isa::avx512amx) return true;
  WARN("no tile registers here (or capped by TWINLENS_MAX_ISA): nothing to compare");
  return false;
}

Tensor by_multiply_adds(const Tensor& a, const Tensor& b) {
  set_split_f32(false);
  Tensor c = matmul(a, b);
  set_split_f32(true);
  return c;
}

float product_of(float a, float b) { return matmul(full({1, 1}, a), full({1, 1}, b)).data<float>()[0]; }

TEST_CASE("f32 products in tile registers are as near to double precision as multiply-adds") {
  if (!has_tiles()) return;
  const Shape shapes[] = {{1, 1, 1},     {3, 2, 5},       {33, 31, 17},  {32, 32, 32}, {65, 64, 47},
                          {40, 800, 70}, {50, 1030, 200}, {600, 96, 40}, {7, 5000, 9}};
  for (const Shape& s : shapes) {
    const Tensor a = test::tensor_of(test::random_input({s[0], s[1]}, "a")), b = test::tensor_of(test::random_input({s[1], s[2]}, "b"));
    const Tensor a_turned = dense(a.transpose(0, 1)).transpose(0, 1), b_turned = dense(b.transpose(0, 1)).transpose(0, 1);
    INFO(s[0] << " x " << s[1] << " x " << s[2]);
    const Tensor c = matmul(a, b);
    const double bound = std::max(test::product_error(by_multiply_adds(a, b), a, b), 0x1p-24);
    CHECK(test::product_error(c, a, b) <= bound);
    // However the operands lie, the bits are the same.
    CHECK(matmul(a_turned, b).to_vector() == c.to_vector());
    CHECK(matmul(a, b_turned).to_vector() == c.to_vector());
    CHECK(matmul(a_turned, b_turned).to_vector() == c.to_vector());
  }
}

TEST_CASE("f32 products in tile registers keep all 24 bits of a number") {
  if (!has_tiles()) return;
  for (const float x : {1.0F, -1.0F, 16777215.0F, 8388609.0F, 0x1.fffffep-60F, 0x1.00ff01p-60F, 0x1.7f807fp100F, 0x1.fffffep127F,
                        -0x1.fffffep127F, 0x1.ffp127F, 0x1.800002p-100F}) {
    INFO(x);
    CHECK(product_of(x, 1.0F) == x);
    CHECK(product_of(-1.0F, x) == -x);
  }
  CHECK(product_of(4097.0F, 4095.0F) == 16777215.0F);
}

TEST_CASE("f32 products in tile registers: the smallest numbers lose bits, and nothing becomes what it is not") {
  if (!has_tiles()) return;
  for (const float x : {0x1p-126F, 0x1.fffffep-112F, 0x1.234566p-120F, 0x1p-149F, 0x1.fffffcp-127F, -0x1.8p-130F}) {
    INFO(x);
    CHECK(std::abs(product_of(x, 1.0F) - x) <= 0x1p-126F);
    CHECK(std::abs(product_of(1.0F, x) - x) <= 0x1p-126F);
    // Its neighbours in a pair are not touched.
    const Tensor a = from_vector(std::vector<float>{3.0F, x, x, 5.0F}, {1, 4}), ones = full({4, 1}, 1.0);
    CHECK(matmul(a, ones).data<float>()[0] == 8.0F);
    CHECK(matmul(ones.transpose(0, 1), a.transpose(0, 1)).data<float>()[0] == 8.0F);
  }
  CHECK(product_of(kInfinity, 1.0F) == kInfinity);
  CHECK(product_of(1.5F, -kInfinity) == -kInfinity);
  CHECK(std::isnan(product_of(kNan, 1.0F)));
  CHECK(std::isnan(product_of(0.0F, kInfinity)));
  CHECK(product_of(0x1p127F, 2.0F) == kInfinity);
}

TEST_CASE("f32 products in tile registers overflow where multiply-adds do") {
  if (!has_tiles()) return;
  for (const float x : {0x1.fffffep63F, 0x1.ffp63F, 0x1.fe8p63F}) {
    INFO(x);
    CHECK(product_of(x, x) == x * x);
    CHECK(product_of(-x, x) == -x * x);
  }
  const Tensor halves = full({1, 2}, 0x1.fffffep126F), ones = full({2, 1}, 1.0);
  CHECK(matmul(halves, ones).data<float>()[0] == 0x1.fffffep127F);
  CHECK(product_of(0x1p64F, 0x1p64F) == kInfinity);
}

// Both NaN, or both the same infinity.
bool same_kind(float x, float y) { return std::isnan(x) ? std::isnan(y) : x == y; }

// Of the product of copies of a and b with something in them that is not finite: elements that are finite by multiply-adds have the bits
// that they have without it; the others are what they are by multiply-adds.
template <class Product>
void check_with_infinities(const Tensor& a, const Tensor& b, const Product& product) {
  const std::vector<float> plain = product(a, b).to_vector();
  Tensor bad_a = a.clone(), bad_b = b.clone();
  const auto put = [](Tensor& x, std::int64_t at, float value) { x.data<float>()[at % x.count()] = value; };
  put(bad_a, 3, kInfinity);
  put(bad_a, 5 * a.size(a.rank() - 1) + 1, -kInfinity);
  put(bad_b, 7, kInfinity);
  put(bad_b, b.count() - 2, kNan);
  const std::vector<float> got = product(bad_a, bad_b).to_vector();
  set_split_f32(false);
  const std::vector<float> want = product(bad_a, bad_b).to_vector();
  set_split_f32(true);
  REQUIRE(got.size() == want.size());
  std::int64_t infinities = 0, nans = 0, wrong = 0;
  for (std::size_t i = 0; i < got.size(); ++i) {
    infinities += std::isinf(want[i]) ? 1 : 0;
    nans += std::isnan(want[i]) ? 1 : 0;
    wrong += std::isfinite(want[i]) ? got[i] != plain[i] : !same_kind(got[i], want[i]);
  }
  CHECK(wrong == 0);
  CHECK(infinities > 0);
  CHECK(nans > 0);
}

TEST_CASE("f32 products in tile registers: infinities are those of multiply-adds, and touch no other element") {
  if (!has_tiles()) return;
  const Shape shapes[] = {{33, 31, 17}, {65, 64, 47}, {40, 800, 70}, {50, 2100, 200}, {600, 96, 40}, {9, 5000, 9}};
  for (const Shape& s : shapes) {
    INFO(s[0] << " x " << s[1] << " x " << s[2]);
    const Tensor a = test::tensor_of(test::random_input({s[0], s[1]}, "a")), b = test::tensor_of(test::random_input({s[1], s[2]}, "b"));
    check_with_infinities(a, b, [](const Tensor& x, const Tensor& y) { return matmul(x, y); });
    check_with_infinities(dense(a.transpose(0, 1)), dense(b.transpose(0, 1)),
                          [](const Tensor& x, const Tensor& y) { return matmul(x.transpose(0, 1), y.transpose(0, 1)); });
  }
  // Of one item of a batch, in windows of pictures, with an epilogue.
  const Tensor items = test::tensor_of(test::random_input({3, 40, 64}, "a")), right = test::tensor_of(test::random_input({3, 64, 40}, "b"));
  check_with_infinities(items, right, [](const Tensor& x, const Tensor& y) { return matmul(x, y); });
  const Tensor maps = test::tensor_of(test::random_input({2, 9, 9, 16}, "a")), w = test::tensor_of(test::random_input({24, 16, 3, 3}, "b"));
  check_with_infinities(maps, w, [](const Tensor& x, const Tensor& y) { return conv2d(x, y, {}, {1, 1}); });
  const Tensor x = test::tensor_of(test::random_input({70, 96}, "a")), weight = test::tensor_of(test::random_input({50, 96}, "b"));
  check_with_infinities(x, weight, [](const Tensor& left, const Tensor& of_right) { return linear(left, of_right, full({50}, 0.5)); });
}

}  // namespace
}  // namespace twinlens
