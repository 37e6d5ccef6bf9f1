// A Transformer that recomputes its blocks in backward gives the bits of one that keeps them, and needs less memory for it.

#include <algorithm>
#include <catch2/catch.hpp>
#include <cmath>

#include "twinlens/core/autograd.h"
#include "twinlens/kernels/memory.h"
#include "twinlens/nn/flat_parameters.h"
#include "twinlens/nn/transformer.h"

namespace twinlens {
namespace {

Tensor waves(const Shape& shape, double phase, double size) {
  std::vector<float> v;
  for (std::int64_t i = 0; i < shape.count(); ++i)
    v.push_back(static_cast<float>(size * std::sin(phase + 0.7 * static_cast<double>(i * i))));
  return from_vector(v, shape);
}

struct Result {
  std::vector<float> y;
  std::vector<std::vector<float>> gradients;  // of x and of every parameter
  std::size_t peak_bytes = 0;                 // beyond what was there before
};

Result run(bool checkpoint_blocks, bool pooled, Compute compute) {
  Transformer model(24, 12, 3, 96, Activation::quick_gelu);
  const Collector all = collect(model);
  double phase = 0.0;
  {
    const NoGrad guard;
    for (const NamedParameter& p : all.parameters) p.parameter->value.copy_(waves(p.parameter->value.shape(), phase += 1.0, 0.3));
  }
  const FlatParameters flat(all, false);  // so that gradients have their place before memory is measured
  Tensor x = waves({40, 24}, 0.5, 1.0);
  x.set_requires_grad(true);
  const Tensor offsets = from_vector(std::vector<std::int64_t>{0, 7, 8, 40}, {4});
  const Tensor last = from_vector(std::vector<std::int64_t>{6, 7, 39}, {3});
  Context context;
  context.training = true;
  context.compute = compute;
  context.checkpoint_blocks = checkpoint_blocks;
  reset_peak_memory(kCpu);
  const std::size_t before = memory_report(kCpu).bytes;
  const Tensor y = model(x, offsets, true, pooled ? last : Tensor{}, context);
  Result result;
  result.y = y.to_vector();
  backward(y, waves(y.shape(), 3.0, 1.0));
  result.peak_bytes = memory_report(kCpu).peak_bytes - before;
  result.gradients.push_back(x.grad().to_vector());
  for (const NamedParameter& p : all.parameters) result.gradients.push_back(p.parameter->value.grad().to_vector());
  return result;
}

TEST_CASE("checkpointed blocks have the bits of plain ones") {
  const bool pooled = GENERATE(false, true);
  const Compute compute = GENERATE(Compute::fp32, Compute::bf16);
  INFO((pooled ? "pooled" : "all rows") << (compute == Compute::bf16 ? ", bf16" : ", fp32"));
  const Result plain = run(false, pooled, compute), saving = run(true, pooled, compute);
  CHECK(plain.y == saving.y);
  CHECK(plain.gradients == saving.gradients);
  for (const std::vector<float>& g : plain.gradients) {
    CHECK(std::any_of(g.begin(), g.end(), [](float v) { return v != 0.0F; }));
  }
  CHECK(2 * saving.peak_bytes < plain.peak_bytes);  // one block of twelve, beside the rows between blocks
}

}  // namespace
}  // namespace twinlens
