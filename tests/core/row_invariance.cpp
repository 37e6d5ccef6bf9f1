// A row's bits do not depend on the rows that accompany it, so that a chunk, a packed batch or another rank computes the same numbers.

#include <catch2/catch.hpp>
#include <cstring>
#include <functional>

#include "tests/kernels/every_set.h"
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

// A kernel may take several registers at a time, and the elements behind them one by one.
TEST_CASE("elementwise functions: a range alone has the bits it has among others") {
  const std::pair<const char*, Tensor (*)(const Tensor&)> ops[] = {
      {"exp", exp},
      {"log of abs", [](const Tensor& x) { return log(abs(x)); }},
      {"sqrt of abs", [](const Tensor& x) { return sqrt(abs(x)); }},
      {"tanh", tanh},
      {"sigmoid", sigmoid},
      {"log_sigmoid", log_sigmoid},
      {"silu", silu},
      {"relu", relu},
      {"gelu", gelu},
      {"gelu_tanh", gelu_tanh},
      {"quick_gelu", quick_gelu},
  };
  const Tensor values = test::tensor_of(test::random_input({131}, "elements", 3.0));
  const Tensor dy = test::tensor_of(test::random_input({131}, "dy"));
  on_every_set([&] {
    for (const auto& op : ops) {
      for (const DType dtype : {DType::f32, DType::bf16}) {
        INFO(op.first << " of " << name_of(dtype));
        const auto through = [&](std::int64_t begin, std::int64_t end) {
          Tensor x = values.slice(0, begin, end).to(dtype).clone();
          x.set_requires_grad(true);
          const Tensor y = op.second(x);
          backward(y, dy.slice(0, begin, end).to(dtype));
          return std::pair{y.to(DType::f32), x.grad().to(DType::f32)};
        };
        const auto [y, dx] = through(0, 131);
        for (const auto& [begin, end] : {std::pair{0, 1}, {3, 12}, {32, 71}, {127, 131}}) {
          const auto [y_part, dx_part] = through(begin, end);
          CHECK(same_bits(y_part, y.slice(0, begin, end)));
          CHECK(same_bits(dx_part, dx.slice(0, begin, end)));
        }
      }
    }
  });
}

TEST_CASE("linear: value and gradient of rows alone have the bits they have among others, with any activation") {
  const Tensor values = test::tensor_of(test::random_input({83, 40}, "rows")), w = test::tensor_of(test::random_input({75, 40}, "w"));
  const Tensor bias = test::tensor_of(test::random_input({75}, "bias")), dy = test::tensor_of(test::random_input({83, 75}, "dy"));
  on_every_set([&] {
    for (const Activation activation :
         {Activation::none, Activation::gelu, Activation::quick_gelu, Activation::gelu_tanh, Activation::relu}) {
      INFO("activation " << static_cast<int>(activation));
      const auto through = [&](std::int64_t begin, std::int64_t end) {
        Tensor x = values.slice(0, begin, end).clone();
        x.set_requires_grad(true);
        LinearOptions options;
        options.activation = activation;
        const Tensor y = linear(x, w, bias, options);
        backward(y, dy.slice(0, begin, end));
        return std::pair{y, x.grad()};
      };
      const auto [y, dx] = through(0, 83);
      for (const auto& [begin, end] : {std::pair{0, 1}, {5, 7}, {16, 33}, {70, 83}}) {
        const auto [y_part, dx_part] = through(begin, end);
        CHECK(same_bits(y_part, y.slice(0, begin, end)));
        CHECK(same_bits(dx_part, dx.slice(0, begin, end)));
      }
    }
  });
}

}  // namespace
}  // namespace twinlens
