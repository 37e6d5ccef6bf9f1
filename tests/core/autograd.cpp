#include "twinlens/core/autograd.h"

#include <catch2/catch.hpp>

#include "twinlens/core/ops.h"
#include "twinlens/kernels/error.h"

namespace twinlens {
namespace {

Tensor leaf(const Shape& shape, double value) {
  Tensor x = full(shape, value);
  x.set_requires_grad(true);
  return x;
}

TEST_CASE("gradients that meet are summed") {
  Tensor x = leaf({2, 3}, 1.0);
  const Tensor y = layer_norm(x.slice(1, 0, 2), {}, {});
  backward(x.transpose(0, 1).reshape({6}), full({6}, 2.0));
  backward(x.slice(0, 0, 1), full({1, 3}, 1.0));
  CHECK(x.grad().to_vector() == std::vector<float>{3, 3, 3, 2, 2, 2});
}

TEST_CASE("a modified saved tensor is an error") {
  Tensor x = leaf({2, 3}, 1.0);
  const Tensor h = x.clone();
  const Tensor y = layer_norm(h, {}, {});
  {
    const NoGrad guard;
    Tensor(h.detach()).fill_(2.0);
  }
  CHECK_THROWS_WITH(backward(y, full({2, 3}, 1.0)), Catch::Contains("layer_norm") || Catch::Contains("modified in place"));
}

TEST_CASE("backward twice says so") {
  Tensor x = leaf({2, 3}, 1.0);
  const Tensor y = layer_norm(x, {}, {});
  backward(y, full({2, 3}, 1.0));
  CHECK_THROWS_AS(backward(y, full({2, 3}, 1.0)), AutogradError);
}

TEST_CASE("NoGrad records nothing and in-place writes on leaves are refused") {
  Tensor x = leaf({2, 2}, 1.0);
  {
    const NoGrad guard;
    CHECK_FALSE(layer_norm(x, {}, {}).requires_grad());
    x.fill_(3.0);
  }
  CHECK_THROWS_AS(x.fill_(1.0), AutogradError);
}

TEST_CASE("an embedding adds its gradient to a flat block in place") {
  const auto ids = from_vector(std::vector<std::int64_t>{2, 0, 2}, {3});
  Tensor table = leaf({4, 2}, 1.0);
  const Tensor block = full({4, 2}, 10.0);
  table.set_grad(block);
  int ready = 0;
  on_grad_ready(table, [&](const Tensor&) { ++ready; });
  backward(embedding(table, ids), from_vector(std::vector<float>{1, 2, 3, 4, 5, 6}, {3, 2}));
  CHECK(block.to_vector() == std::vector<float>{13, 14, 10, 10, 16, 18, 10, 10});
  CHECK(ready == 1);
  // A bf16 shadow sends its gradient to the f32 block of its master.
  const Tensor shadow = table.detach().to(DType::bf16);
  share_gradient(shadow, table);
  const Tensor y = embedding(shadow, ids);
  CHECK(y.dtype() == DType::bf16);
  backward(y, full({3, 2}, 1.0, DType::bf16));
  CHECK(block.to_vector() == std::vector<float>{14, 15, 10, 10, 18, 20, 10, 10});
  CHECK(ready == 2);
}

}  // namespace
}  // namespace twinlens
