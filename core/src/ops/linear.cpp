#include "core/src/ops/product.h"
#include "twinlens/core/autograd.h"
#include "twinlens/core/check.h"
#include "twinlens/core/ops.h"
#include "twinlens/kernels/bias_gradient.h"

namespace twinlens {
namespace {

const float* floats_or_null(const Tensor& x) { return x.defined() ? static_cast<const float*>(x.raw()) : nullptr; }

struct LinearNode final : Node {
  Saved x, w, pre;
  Activation activation = Activation::none;
  bool bf16 = false;

  const char* name() const override { return "linear"; }

  void backward(const Tensor& dy_in, Gradients& grads) override {
    const Tensor rows = x.get(), weight = w.get();
    const Tensor dy = dense_rows(dy_in);
    const Tensor dpre = before_activation(dy, grads);
    if (grads.wants(0)) {
      Tensor dx = empty(rows.shape(), rows.dtype(), rows.device());
      Matmul args;
      args.a = operand_of(dpre, false);
      args.b = operand_of(weight, false);
      args.c = twinlens::rows_of(dx);
      args.depth = weight.size(0);
      args.bf16 = bf16;
      flatten(args.a, dpre);
      if (dx.count() > 0) run_product(args, rows.device());
      grads.add(0, std::move(dx));
    }
    if (grads.wants(1)) weight_gradient(rows, weight, dpre, grads);
    if (grads.wants(3)) grads.add(3, dy_in);
  }

  void release() override {
    for (Saved* saved : {&x, &w, &pre}) saved->reset();
  }

 private:
  static void flatten(MatmulOperand& o, const Tensor& x) { o.stride = const_rows_of(x).stride; }

  // dpre = dy * activation'(pre) and the bias gradient, in one pass.
  Tensor before_activation(const Tensor& dy, Gradients& grads) {
    const bool wants_bias = grads.wants(2);
    if (activation == Activation::none && !wants_bias) return dy;
    const std::int64_t c = dy.size(-1), n = c == 0 ? 0 : dy.count() / c;
    BiasGradient args;
    args.dy = const_rows_of(dy);
    args.activation = activation;
    Tensor dpre = dy, dbias, scratch;
    if (activation != Activation::none) {
      args.pre = const_rows_of(pre.get());
      dpre = empty(dy.shape(), dy.dtype(), dy.device());
      args.dpre = twinlens::rows_of(dpre);
    }
    if (wants_bias) {
      const Tensor block = grads.accumulator(2);
      dbias = block.defined() ? block : empty({c}, DType::f32, dy.device());
      args.accumulate = block.defined();
      scratch = empty({(n + BiasGradient::kRowsPerBlock - 1) / BiasGradient::kRowsPerBlock, c}, DType::f32, dy.device());
      args.dbias = static_cast<float*>(dbias.raw());
      args.scratch = static_cast<float*>(scratch.raw());
    }
    run(current_stream(dy.device()), args);
    if (wants_bias && args.accumulate) {
      grads.done(2);
    } else if (wants_bias) {
      grads.add(2, std::move(dbias));
    }
    return dpre;
  }

  void weight_gradient(const Tensor& rows, const Tensor& weight, const Tensor& dpre, Gradients& grads) const {
    const Tensor block = grads.accumulator(1);
    Tensor dw = block.defined() ? block : zeros(weight.shape(), DType::f32, weight.device());
    Matmul args;
    args.a = operand_of(dpre, true);
    args.b = operand_of(rows, false);
    flatten(args.a, dpre);
    flatten(args.b, rows);
    args.c = twinlens::rows_of(dw);
    args.depth = const_rows_of(rows).rows;
    args.bf16 = bf16;
    args.accumulate = true;
    if (dw.count() > 0 && args.depth > 0) run_product(args, rows.device());
    if (block.defined()) {
      grads.done(1);
    } else {
      grads.add(1, std::move(dw));
    }
  }
};

void check_linear(const Tensor& x, const Tensor& w, const Tensor& bias, const LinearOptions& options) {
  check(x.rank() >= 1 && w.rank() == 2, "linear", "x needs at least one dimension and w two", {{"x", x}, {"w", w}});
  check(x.size(-1) == w.size(1), "linear", "the last dim of x must match the last dim of w", {{"x", x}, {"w", w}});
  check_compute_dtype("linear", {{"x", x}, {"w", w}, {"residual", options.residual}});
  check_same_device("linear", {{"x", x}, {"w", w}, {"bias", bias}, {"residual", options.residual}});
  if (bias.defined()) {
    check(bias.shape() == Shape{w.size(0)}, "linear", "bias must match the first dim of w", {{"w", w}, {"bias", bias}});
    check_dtype(bias.dtype() == DType::f32 && bias.is_dense(), "linear", "bias must be dense f32", {{"bias", bias}});
  }
}

}  // namespace

Tensor linear(const Tensor& x, const Tensor& w, const Tensor& bias, const LinearOptions& options) {
  check_linear(x, w, bias, options);
  Shape shape = x.shape();
  shape[-1] = w.size(0);
  const Tensor& residual = options.residual;
  if (residual.defined()) check(residual.shape() == shape, "linear", "residual must have the shape of the result " + to_string(shape), {{"x", x}, {"residual", residual}});

  const Tensor rows = dense_rows(x), weight = dense_rows(w), added = residual.defined() ? dense_rows(residual) : residual;
  Tensor y = empty(shape, options.out.value_or(residual.defined() ? residual.dtype() : x.dtype()), x.device());
  const bool records = needs_grad({&x, &w, &bias, &residual});
  Tensor pre;
  if (records && options.activation != Activation::none) pre = empty(shape, y.dtype(), x.device());
  Matmul args;
  args.a = operand_of(rows, false);
  args.a.stride = const_rows_of(rows).stride;
  args.b = operand_of(weight, true);
  args.c = rows_of(y);
  args.depth = w.size(1);
  args.bf16 = computes_bf16(options.compute, x, w);
  args.bias = floats_or_null(bias);
  args.activation = options.activation;
  if (pre.defined()) args.pre = rows_of(pre);
  if (residual.defined()) args.residual = const_rows_of(added);
  if (y.count() > 0) run_product(args, x.device());
  if (!records) return y;
  auto node = std::make_shared<LinearNode>();
  node->x = Saved("x", rows);
  node->w = Saved("w", weight);
  node->pre = Saved("pre", pre);
  node->activation = options.activation;
  node->bf16 = args.bf16;
  return record(std::move(y), std::move(node), {&x, &w, &bias, &residual});
}

}  // namespace twinlens
