// A row's bits do not depend on the rows that accompany it, so that a chunk, a packed batch or another rank computes the same numbers.

#include <catch2/catch.hpp>
#include <cstring>
#include <functional>

#include "tests/support/op_case.h"

#include "twinlens/core/autograd.h"
#include "twinlens/core/ops.h"

namespace twinlens {
namespace {

bool same_bits(const Tensor& a, const Tensor& b) {
  return a.shape() == b.shape() && std::memcmp(dense(a).raw(), dense(b).raw(), static_cast<std::size_t>(a.count()) * sizeof(float)) == 0;
}

TEST_CASE("rows: value and gradient of one row alone have the bits they have among others") {
  const std::pair<const char*, std::function<Tensor(const Tensor&)>> ops[] = {
      {"softmax", softmax},
      {"log_softmax", log_softmax},
      {"l2_normalize", [](const Tensor& x) { return l2_normalize(x); }},
      {"layer_norm", [](const Tensor& x) { return layer_norm(x, {}, {}); }},
      {"topk", [](const Tensor& x) { return topk(x, 5).values; }},
  };
  const Tensor values = test::tensor_of(test::random_input({211, 193}, "rows"));
  for (const auto& [name, op] : ops) {
    INFO(name);
    Tensor all = values.clone();
    all.set_requires_grad(true);
    const Tensor y = op(all);
    const Tensor dy = test::tensor_of(test::random_input(y.shape(), "dy"));
    backward(y, dy);
    for (const std::int64_t r : {0, 1, 100, 210}) {
      Tensor one = values.slice(0, r, r + 1).clone();
      one.set_requires_grad(true);
      const Tensor y_one = op(one);
      backward(y_one, dy.slice(0, r, r + 1));
      CHECK(same_bits(y_one, y.slice(0, r, r + 1)));
      CHECK(same_bits(one.grad(), all.grad().slice(0, r, r + 1)));
    }
  }
}

}  // namespace
}  // namespace twinlens
