#include "core/src/ops/elements.h"
#include "core/src/ops/product.h"

#include "twinlens/core/autograd.h"
#include "twinlens/core/check.h"
#include "twinlens/core/ops.h"
#include "twinlens/kernels/bias_gradient.h"

namespace twinlens {
namespace {

MatmulOperand operand(const ConstRows& x, bool transposed = false) { return {x.data, x.dtype, x.stride, transposed, 0}; }

struct LinearNode final : Node {
  Saved x, w, pre;
  Activation activation = Activation::none;
  Compute compute = Compute::fp32;
  const char* name() const override { return "linear"; }

  void backward(const Tensor& dy_in, Gradients& grads) override {
    const Tensor dy = dense_rows(dy_in);
    const Tensor dpre = through_epilogue(dy, grads);
    if (grads.wants(0)) {
      Tensor dx = empty(x.get().shape(), x.get().dtype(), dy.device());
      const Operand weight(w.get());
      Matmul m;
      m.a = operand(const_rows_of(dpre));
      m.b = weight.matrix;
      m.c = rows_of(dx);
      m.depth = dpre.size(-1);
      m.compute = compute;
      run_product(dy.device(), m);
      grads.add(0, std::move(dx));
    }
    if (grads.wants(1)) add_weight_gradient(dpre, grads);
    if (grads.wants(3)) grads.add(3, dy_in);
  }

  void release() override {
    for (Saved* saved : {&x, &w, &pre}) saved->reset();
  }

 private:
  // dy of the product itself, and the bias gradient in the same pass.
  Tensor through_epilogue(const Tensor& dy, Gradients& grads) const {
    const bool wants_products = grads.wants(0) || grads.wants(1);
    BiasGradient args;
    args.dy = const_rows_of(dy);
    args.activation = activation;
    Tensor dpre = dy, dbias, scratch;
    bool in_place = false;
    if (activation != Activation::none) args.pre = const_rows_of(pre.get());
    // Both products round it to bf16 anyway when they compute in bf16. On a card each would do so in a pass of its own; the CPU rounds
    // while it packs.
    const bool rounds_once = dy.device().is_cuda() && dy.dtype() != dtype_of(compute);
    if (wants_products && (activation != Activation::none || rounds_once)) {
      args.dpre = rows_of(dpre = empty(dy.shape(), dtype_of(compute), dy.device()));
    }
    if (grads.wants(2)) {
      bool forgotten = false;
      dbias = grads.accumulator(2, &forgotten);
      in_place = dbias.defined();
      args.accumulate = in_place && !forgotten;
      if (!dbias.defined()) dbias = empty({dy.size(-1)}, DType::f32, dy.device());
      const std::int64_t blocks = (args.dy.rows + BiasGradient::kRowsPerBlock - 1) / BiasGradient::kRowsPerBlock;
      scratch = empty({blocks, dy.size(-1)}, DType::f32, dy.device());
      args.dbias = floats(dbias);
      args.scratch = floats(scratch);
    }
    if (args.dpre.data != nullptr || args.dbias != nullptr) run(current_stream(dy.device()), args);
    if (in_place) {
      grads.done(2);
    } else if (dbias.defined()) {
      grads.add(2, std::move(dbias));
    }
    return dpre;
  }

  // dw = dpre^T x, straight into the parameter's gradient block when there is one.
  void add_weight_gradient(const Tensor& dpre, Gradients& grads) const {
    bool forgotten = false;
    Tensor dw = grads.accumulator(1, &forgotten);
    const bool in_place = dw.defined();
    Matmul m;
    m.accumulate = in_place && !forgotten;
    if (!dw.defined()) dw = empty(w.get().shape(), DType::f32, dpre.device());
    m.a = operand(const_rows_of(dpre), true);
    m.b = operand(const_rows_of(x.get()));
    m.c = rows_of(dw);
    m.depth = const_rows_of(dpre).rows;
    m.compute = compute;
    run_product(dpre.device(), m);
    if (in_place) {
      grads.done(1);
    } else {
      grads.add(1, std::move(dw));
    }
  }
};

Tensor activated(Activation activation, const Tensor& x) {
  switch (activation) {
    case Activation::none: break;
    case Activation::relu: return relu(x);
    case Activation::gelu: return gelu(x);
    case Activation::gelu_tanh: return gelu_tanh(x);
    case Activation::quick_gelu: return quick_gelu(x);
    case Activation::silu: return silu(x);
  }
  return x;
}

void check_linear(const Tensor& x, const Tensor& w, const Tensor& bias, const Tensor& residual, const Shape& shape) {
  if (bias.defined()) {
    check(bias.shape() == Shape{w.size(0)}, "linear", "bias must match the rows of w", {{"x", x}, {"w", w}, {"bias", bias}});
    check_dtype(bias.dtype() == DType::f32 && bias.is_dense(), "linear", "bias must be dense f32", {{"bias", bias}});
  }
  if (residual.defined()) {
    check(residual.shape() == shape, "linear", "residual must have the shape of the result " + to_string(shape),
          {{"x", x}, {"w", w}, {"residual", residual}});
    check_compute_dtype("linear", {{"residual", residual}});
  }
}

}  // namespace

Tensor linear(const Tensor& x, const Tensor& w, const Tensor& bias, const LinearOptions& options) {
  check(x.rank() >= 1 && w.rank() == 2, "linear", "x needs at least one dimension and w two", {{"x", x}, {"w", w}});
  check(x.size(-1) == w.size(1), "linear", "columns of x and w must agree", {{"x", x}, {"w", w}});
  check_compute_dtype("linear", {{"x", x}, {"w", w}});
  check_same_device("linear", {{"x", x}, {"w", w}, {"bias", bias}, {"residual", options.residual}});
  Shape shape = x.shape();
  shape[-1] = w.size(0);
  check_linear(x, w, bias, options.residual, shape);

  const Compute compute = compute_of(options.compute, x.dtype(), w.dtype());
  check_compute("linear", compute, x.device());
  const bool wants_grad = needs_grad({&x, &w, &bias, &options.residual});
  const DType dtype =
      check_result_dtype("linear", {"x", x}, options.out.value_or(options.residual.defined() ? options.residual.dtype() : x.dtype()));
  Tensor y = empty(shape, dtype, x.device()), pre;
  const Tensor rows = dense_rows(x), residual = options.residual.defined() ? dense_rows(options.residual) : Tensor{};
  const Operand weight(w);
  Matmul m;
  m.a = operand(const_rows_of(rows));
  m.b = weight.flipped();
  m.c = rows_of(y);
  m.depth = x.size(-1);
  m.compute = compute;
  m.bias = bias.defined() ? floats(bias) : nullptr;
  m.activation = options.activation;
  if (residual.defined()) m.residual = const_rows_of(residual);
  if (wants_grad && options.activation != Activation::none) m.pre = rows_of(pre = empty(shape, dtype, x.device()));
  run_product(x.device(), m);
  if (!wants_grad) return y;
  auto node = std::make_shared<LinearNode>();
  node->x = Saved("x", rows);
  node->w = Saved("w", w);
  node->pre = Saved("pre", pre);
  node->activation = options.activation;
  node->compute = compute;
  if (options.recompute && pre.defined() && !residual.defined()) {
    set_recipe(y, [argument = node->pre, activation = options.activation] { return activated(activation, argument.get()); });
  }
  return record(std::move(y), std::move(node), {&x, &w, &bias, &options.residual});
}

}  // namespace twinlens
