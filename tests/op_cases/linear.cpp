#include <cmath>

#include "tests/support/op_case.h"

#include "twinlens/core/autograd.h"
#include "twinlens/core/ops.h"

namespace twinlens::test {
namespace {

double activated(Activation activation, double x) {
  switch (activation) {
    case Activation::none: return x;
    case Activation::relu: return x > 0.0 ? x : 0.0;
    case Activation::gelu: return 0.5 * x * std::erfc(-x / std::sqrt(2.0));
    case Activation::gelu_tanh: return 0.5 * x * (1.0 + std::tanh(std::sqrt(2.0 / std::acos(-1.0)) * (x + 0.044715 * x * x * x)));
    case Activation::quick_gelu: return x / (1.0 + std::exp(-1.702 * x));
    case Activation::silu: return x / (1.0 + std::exp(-x));
  }
  return x;
}

const char* name(Activation activation) {
  const char* names[] = {"none", "relu", "gelu", "gelu_tanh", "quick_gelu", "silu"};
  return names[static_cast<int>(activation)];
}

// Inputs x (..., K), w (M, K), then bias (M) and residual (..., M) where present.
Array reference(const std::vector<Array>& in, Activation activation, bool bias, bool residual) {
  const Array &x = in[0], &w = in[1];
  Shape shape = x.shape;
  const std::int64_t depth = x.shape[-1], cols = w.shape[0];
  shape[-1] = cols;
  Array y(shape);
  const std::int64_t rows = cols == 0 ? 0 : shape.count() / cols;
  for (std::int64_t i = 0; i < rows; ++i) {
    for (std::int64_t j = 0; j < cols; ++j) {
      double sum = bias ? in[2][j] : 0.0;
      for (std::int64_t k = 0; k < depth; ++k) sum += x[i * depth + k] * w[j * depth + k];
      y[i * cols + j] = activated(activation, sum) + (residual ? in[bias ? 3 : 2][i * cols + j] : 0.0);
    }
  }
  return y;
}

OpCase make(const Shape& x, std::int64_t cols, Activation activation, bool bias, bool residual, bool w_is_parameter = true) {
  OpCase c;
  c.name = to_string(x) + " to " + std::to_string(cols) + " " + name(activation) + (bias ? " bias" : "") + (residual ? " residual" : "");
  Shape y = x;
  y[-1] = cols;
  const double scale = 1.5 / std::sqrt(std::max<double>(1.0, static_cast<double>(x[-1])));
  c.inputs = {random_input(x, "x" + c.name),
              w_is_parameter ? parameter_input({cols, x[-1]}, "w" + c.name, scale) : random_input({cols, x[-1]}, "w" + c.name, scale)};
  if (bias) c.inputs.push_back(parameter_input({cols}, "bias", 0.5));
  if (residual) c.inputs.push_back(random_input(y, "residual" + c.name));
  c.call = [=](const std::vector<Tensor>& in) {
    LinearOptions options;
    options.activation = activation;
    if (residual) options.residual = in[bias ? 3 : 2];
    return linear(in[0], in[1], bias ? in[2] : Tensor{}, options);
  };
  c.reference = [=](const std::vector<Array>& in) { return reference(in, activation, bias, residual); };
  return c;
}

// What mixed precision does: the product reads a bf16 copy of an f32 master, which gets the gradient, in f32.
OpCase with_shadow(Activation activation) {
  OpCase c = make({41, 33}, 67, activation, true, true);
  c.name += " bf16 shadow";
  c.call = [activation](const std::vector<Tensor>& in) {
    const Tensor shadow = in[1].detach().to(DType::bf16);
    share_gradient(shadow, in[1]);
    LinearOptions options;
    options.activation = activation;
    options.residual = in[3];
    return linear(in[0], shadow, in[2], options);
  };
  c.tolerance = c.gradient_tolerance = 1e-2;  // x and the weights are rounded to 8 bits before the product
  return c;
}

// Another dtype of the result or of the product than that of x.
OpCase with_options(const std::string& what, std::optional<DType> out, Compute compute) {
  OpCase c = make({41, 33}, 67, Activation::quick_gelu, true, false, false);
  c.name += what;
  c.call = [=](const std::vector<Tensor>& in) {
    LinearOptions options;
    options.activation = Activation::quick_gelu;
    options.out = out;
    options.compute = compute;
    return linear(in[0], in[1], in[2], options);
  };
  if (out == DType::bf16 || compute == Compute::bf16) c.tolerance = c.gradient_tolerance = 1e-2;
  return c;
}

}  // namespace

OpCases op_cases_linear() {
  OpCases op;
  for (const Activation a :
       {Activation::none, Activation::relu, Activation::gelu, Activation::gelu_tanh, Activation::quick_gelu, Activation::silu}) {
    op.cases.push_back(make({5, 3, 33}, 29, a, true, false));
    op.cases.push_back(make({41, 17}, 67, a, true, true, false));
  }
  op.cases.push_back(make({7, 19}, 23, Activation::none, false, false));
  op.cases.push_back(make({7, 19}, 23, Activation::quick_gelu, false, true));
  op.cases.push_back(make({19}, 23, Activation::none, true, false));  // one row without a leading dimension
  op.cases.push_back(make({1, 1}, 1, Activation::gelu, true, true));
  op.cases.push_back(make({0, 8}, 5, Activation::quick_gelu, true, true));
  op.cases.push_back(make({3, 0}, 5, Activation::none, true, false));
  op.cases.push_back(make({130, 48}, 100, Activation::quick_gelu, true, true));  // shared by the threads, rows in several blocks
  op.cases.push_back(make({9, 3200}, 60, Activation::gelu, true, true));         // the depth in several blocks, bf16 too
  op.cases.push_back(with_shadow(Activation::none));
  op.cases.push_back(with_shadow(Activation::gelu));
  op.cases.push_back(with_options(" to f32", DType::f32, Compute::fp32));
  op.cases.push_back(with_options(" to bf16", DType::bf16, Compute::fp32));
  op.cases.push_back(with_options(" in bf16", {}, Compute::bf16));

  OpCase bench = make({50, 768}, 3072, Activation::quick_gelu, true, false);
  bench.name = "ViT-B/32 fc1 with quick_gelu, one image [50,768] to 3072";
  for (CaseInput& input : bench.inputs) input.differentiable = false;
  bench.bench = true;
  bench.flops = 2.0 * 50 * 768 * 3072;
  bench.bytes = 4.0 * (50 * 768 + 3072 * 768 + 50 * 3072);
  op.cases.push_back(bench);

  op.errors.push_back({"result in f16",
                       [] {
                         linear(zeros({4, 8}), zeros({3, 8}), {}, {.residual = {}, .out = DType::f16});
                       },
                       {"linear", "f16 on CUDA"}});
  op.errors.push_back({"depth",
                       [] {
                         linear(zeros({4, 8}), zeros({3, 7}), {});
                       },
                       {"linear", "columns of x and w must agree", "[4,8]", "[3,7]"}});
  op.errors.push_back({"bias",
                       [] {
                         linear(zeros({4, 8}), zeros({3, 8}), zeros({4}));
                       },
                       {"linear", "bias must match the rows of w", "[3,8]", "[4]"}});
  op.errors.push_back({"residual",
                       [] {
                         LinearOptions options;
                         options.residual = zeros({4, 8});
                         linear(zeros({4, 8}), zeros({3, 8}), {}, options);
                       },
                       {"linear", "residual must have the shape of the result [4,3]", "[4,8]"}});
  op.errors.push_back({"bf16 bias",
                       [] {
                         linear(zeros({4, 8}), zeros({3, 8}), zeros({3}, DType::bf16));
                       },
                       {"linear", "bias must be dense f32", "bf16"}});
  for (OpCase& c : op.cases) c.cuda = true;
  return op;
}

}  // namespace twinlens::test
