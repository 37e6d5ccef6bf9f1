// Elementwise functions of one argument: one kernel, one node.

#include "twinlens/kernels/unary.h"

#include "twinlens/core/autograd.h"
#include "twinlens/core/check.h"
#include "twinlens/core/ops.h"

namespace twinlens {
namespace {

struct UnaryNode final : Node {
  const char* op = "";
  UnaryFunction function = UnaryFunction::abs;
  float low = 0.0F, high = 0.0F;
  Saved saved;  // y or x, as slope_is_from_output says

  const char* name() const override { return op; }
  void backward(const Tensor& dy_in, Gradients& grads) override {
    const Tensor& kept = saved.get();
    const Tensor dy = dense(dy_in).to(kept.dtype());
    Tensor dx = empty(kept.shape(), kept.dtype(), kept.device());
    run(current_stream(kept.device()), UnaryBackward{function, const_buffer_of(kept), const_buffer_of(dy), buffer_of(dx), low, high});
    grads.add(0, std::move(dx));
  }
  void release() override { saved.reset(); }
};

Tensor apply(const char* op, UnaryFunction function, const Tensor& x, double low = 0.0, double high = 0.0) {
  check_compute_dtype(op, {{"x", x}});
  const Tensor source = dense(x);
  Tensor y = empty(x.shape(), x.dtype(), x.device());
  const UnaryForward args{function, const_buffer_of(source), buffer_of(y), static_cast<float>(low), static_cast<float>(high)};
  run(current_stream(x.device()), args);
  if (!needs_grad({&x})) return y;
  auto node = std::make_shared<UnaryNode>();
  node->op = op;
  node->function = function;
  node->low = args.low;
  node->high = args.high;
  node->saved = slope_is_from_output(function) ? Saved("y", y) : Saved("x", source);
  return record(std::move(y), std::move(node), {&x});
}

}  // namespace

Tensor neg(const Tensor& x) {
  check_compute_dtype("neg", {{"x", x}});
  return affine(x, -1.0, -0.0);  // adding -0 keeps the sign of a zero
}
Tensor abs(const Tensor& x) { return apply("abs", UnaryFunction::abs, x); }
Tensor exp(const Tensor& x) { return apply("exp", UnaryFunction::exp, x); }
Tensor log(const Tensor& x) { return apply("log", UnaryFunction::log, x); }
Tensor sqrt(const Tensor& x) { return apply("sqrt", UnaryFunction::sqrt, x); }
Tensor square(const Tensor& x) { return apply("square", UnaryFunction::square, x); }
Tensor tanh(const Tensor& x) { return apply("tanh", UnaryFunction::tanh, x); }
Tensor sigmoid(const Tensor& x) { return apply("sigmoid", UnaryFunction::sigmoid, x); }
Tensor log_sigmoid(const Tensor& x) { return apply("log_sigmoid", UnaryFunction::log_sigmoid, x); }
Tensor silu(const Tensor& x) { return apply("silu", UnaryFunction::silu, x); }
Tensor relu(const Tensor& x) { return apply("relu", UnaryFunction::relu, x); }
Tensor gelu(const Tensor& x) { return apply("gelu", UnaryFunction::gelu, x); }
Tensor gelu_tanh(const Tensor& x) { return apply("gelu_tanh", UnaryFunction::gelu_tanh, x); }
Tensor quick_gelu(const Tensor& x) { return apply("quick_gelu", UnaryFunction::quick_gelu, x); }

Tensor clamp(const Tensor& x, double low, double high) {
  check(low <= high, "clamp", "low must not exceed high; low=" + std::to_string(low) + ", high=" + std::to_string(high), {{"x", x}});
  return apply("clamp", UnaryFunction::clamp, x, low, high);
}

}  // namespace twinlens
