// What attention promises beyond its values: a sequence's bits are its own.
#include <catch2/catch.hpp>
#include <limits>

#include "tests/support/op_case.h"

#include "twinlens/core/autograd.h"
#include "twinlens/core/ops.h"

namespace twinlens {
namespace {

struct Run {
  std::vector<float> y, dqkv;
};

Run run_of(const std::vector<float>& values, const std::vector<std::int64_t>& offsets, DType dtype) {
  constexpr std::int64_t columns = 2 * 40;
  Tensor qkv = from_vector(values, {offsets.back(), 3 * columns}).to(dtype);
  qkv.set_requires_grad(true);
  AttentionOptions options;
  options.heads = 2;
  options.causal = true;
  options.query_offsets = from_vector(offsets, {static_cast<std::int64_t>(offsets.size())});
  const Tensor y = attention_qkv(qkv, options);
  backward(y, full(y.shape(), 0.25, dtype));
  return {y.to(DType::f32).to_vector(), qkv.grad().to(DType::f32).to_vector()};
}

TEST_CASE("attention: offsets keep the numbers that a tensor had when they were made of it") {
  Tensor numbers = from_vector(std::vector<std::int64_t>{0, 2, 4}, {3});
  const SequenceOffsets offsets(numbers);
  numbers.copy_(from_vector(std::vector<std::int64_t>{0, 2, 4'000'000'000}, {3}));
  CHECK(offsets.tensor().to_ints() == std::vector<std::int64_t>{0, 2, 4});
  CHECK(offsets.rows() == 4);
}

TEST_CASE("attention: a packed sequence has the bits that it has alone") {
  const DType dtype = GENERATE(DType::f32, DType::bf16);
  // (One longer than what is computed in tile registers.)
  const std::vector<std::int64_t> offsets{0, 7, 47, 48, 125, 1225};
  const std::int64_t width = 240;
  const test::CaseInput input = test::random_input({offsets.back(), width}, "packed");
  const std::vector<float> all(input.values.v.begin(), input.values.v.end());
  const Run together = run_of(all, offsets, dtype);
  for (std::size_t s = 0; s + 1 < offsets.size(); ++s) {
    const auto part = [&](const std::vector<float>& x, std::int64_t columns) {
      return std::vector<float>(x.begin() + offsets[s] * columns, x.begin() + offsets[s + 1] * columns);
    };
    const Run alone = run_of(part(all, width), {0, offsets[s + 1] - offsets[s]}, dtype);
    CHECK(alone.y == part(together.y, width / 3));
    CHECK(alone.dqkv == part(together.dqkv, width));
  }
}

// Documented in ops.h; PyTorch's softmax of such a row is NaN.
TEST_CASE("attention: a query that sees no key gives zeros and has no gradient") {
  const DType dtype = GENERATE(DType::f32, DType::bf16);
  AttentionOptions no_keys, causal, masked;
  no_keys.query_offsets = SequenceOffsets({0, 2, 3});
  no_keys.key_offsets = SequenceOffsets({0, 0, 2});
  causal.query_offsets = SequenceOffsets({0, 3});
  causal.key_offsets = SequenceOffsets({0, 2});
  causal.causal = true;
  masked.query_offsets = causal.query_offsets;
  masked.key_offsets = causal.key_offsets;
  const float inf = std::numeric_limits<float>::infinity();
  masked.bias = from_vector(std::vector<float>{-inf, -inf, 0, 0, 0, -inf}, {1, 3, 2});
  const std::pair<AttentionOptions, std::int64_t> cases[] = {{no_keys, 2}, {causal, 1}, {masked, 1}};
  for (const auto& [options, blind] : cases) {
    const auto made = [&](std::int64_t rows, double value) { return full({rows, 16}, value).to(dtype).set_requires_grad(true); };
    const Tensor q = made(3, 0.5), k = made(2, 0.25), v = made(2, 2.0);
    const Tensor y = attention(q, k, v, options);
    backward(y, full(y.shape(), 1.0));
    CHECK(y.slice(0, 0, blind).to_vector() == std::vector<float>(static_cast<std::size_t>(16 * blind), 0.0F));
    CHECK(y.slice(0, blind, 3).to_vector() == std::vector<float>(static_cast<std::size_t>(16 * (3 - blind)), 2.0F));
    CHECK(q.grad().slice(0, 0, blind).to_vector() == std::vector<float>(static_cast<std::size_t>(16 * blind), 0.0F));
    for (const Tensor& x : {q, k, v}) CHECK(count_nonfinite(x.grad()).to_ints()[0] == 0);
    CHECK(sum(v.grad()).item() == Approx(16.0 * static_cast<double>(3 - blind)));
  }
}

}  // namespace
}  // namespace twinlens
