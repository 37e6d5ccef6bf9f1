// What attention promises beyond its values: a sequence's bits are its own.
#include <catch2/catch.hpp>

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

}  // namespace
}  // namespace twinlens
