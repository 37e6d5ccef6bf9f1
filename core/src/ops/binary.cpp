// Elementwise functions of two arguments with NumPy broadcasting, and comparisons. Gradients are composed of the same ops; sum_to takes
// them back to the shape of an argument that was broadcast.

#include "twinlens/kernels/binary.h"

#include "core/src/ops/broadcast.h"

#include "twinlens/core/autograd.h"
#include "twinlens/core/check.h"
#include "twinlens/core/ops.h"

namespace twinlens {
namespace {

Tensor compute(BinaryFunction function, const Tensor& a, const Tensor& b, const Shape& shape, DType out) {
  Tensor y = empty(shape, out, a.device());
  run(current_stream(a.device()), Binary{function, broadcast_view(a, shape), broadcast_view(b, shape), buffer_of(y)});
  return y;
}

// What addition and subtraction keep: nothing but shapes.
struct SumNode final : Node {
  const char* op = "";
  bool subtract = false;
  const char* name() const override { return op; }
  void backward(const Tensor& dy, Gradients& grads) override {
    if (grads.wants(0)) grads.add(0, sum_to(dy, input_shapes[0]));
    if (!grads.wants(1)) return;
    const Tensor db = sum_to(dy, input_shapes[1]);
    grads.add(1, subtract ? neg(db) : db);
  }
  void release() override {}
};

// The gradient of an argument of this shape: the sum of dy * factor over what was broadcast. Summands are kept in f32.
Tensor product_gradient(const Tensor& dy, const Tensor& factor, const Shape& shape, BinaryFunction product = BinaryFunction::mul) {
  const Tensor same = dy.to(factor.dtype());
  return sum_to(compute(product, same, factor, dy.shape(), shape == dy.shape() ? factor.dtype() : DType::f32), shape);
}

struct MulNode final : Node {
  Saved a, b;
  const char* name() const override { return "mul"; }
  void backward(const Tensor& dy, Gradients& grads) override {
    if (grads.wants(0)) grads.add(0, product_gradient(dy, b.get(), input_shapes[0]));
    if (grads.wants(1)) grads.add(1, product_gradient(dy, a.get(), input_shapes[1]));
  }
  void release() override {
    a.reset();
    b.reset();
  }
};

// y = a / b: da = dy / b, db = -da y.
struct DivNode final : Node {
  Saved b, y;
  const char* name() const override { return "div"; }
  void backward(const Tensor& dy, Gradients& grads) override {
    const Tensor ratio = div(dy.to(b.get().dtype()), b.get());
    if (grads.wants(0)) grads.add(0, sum_to(ratio, input_shapes[0]));
    if (grads.wants(1)) grads.add(1, neg(product_gradient(ratio, y.get(), input_shapes[1])));
  }
  void release() override {
    b.reset();
    y.reset();
  }
};

struct ExtremumNode final : Node {
  const char* op = "";
  bool larger = true;
  Saved a, b;
  const char* name() const override { return op; }
  void backward(const Tensor& dy_in, Gradients& grads) override {
    const Tensor dy = dy_in.to(a.get().dtype());
    for (int i = 0; i < 2; ++i) {
      if (!grads.wants(i)) continue;
      const bool mine_first = (i == 0) == larger;
      const Tensor share =
          compute(BinaryFunction::share_above, (mine_first ? a : b).get(), (mine_first ? b : a).get(), dy.shape(), dy.dtype());
      grads.add(i, product_gradient(dy, share, input_shapes[i], BinaryFunction::share));
    }
  }
  void release() override {
    a.reset();
    b.reset();
  }
};

Tensor checked(const char* op, BinaryFunction function, const Tensor& a, const Tensor& b) {
  check_same_device(op, {{"a", a}, {"b", b}});
  check_compute_dtype(op, {{"a", a}, {"b", b}});
  check_dtype(a.dtype() == b.dtype(), op, "a and b must have one dtype; convert one with .to()", {{"a", a}, {"b", b}});
  return compute(function, a, b, broadcast_shape(op, a.shape(), b.shape()), a.dtype());
}

Tensor add_or_sub(const char* op, bool subtract, const Tensor& a, const Tensor& b) {
  Tensor y = checked(op, subtract ? BinaryFunction::sub : BinaryFunction::add, a, b);
  if (!needs_grad({&a, &b})) return y;
  auto node = std::make_shared<SumNode>();
  node->op = op;
  node->subtract = subtract;
  return record(std::move(y), std::move(node), {&a, &b});
}

Tensor extremum(const char* op, bool larger, const Tensor& a, const Tensor& b) {
  Tensor y = checked(op, larger ? BinaryFunction::maximum : BinaryFunction::minimum, a, b);
  if (!needs_grad({&a, &b})) return y;
  auto node = std::make_shared<ExtremumNode>();
  node->op = op;
  node->larger = larger;
  node->a = Saved("a", a);
  node->b = Saved("b", b);
  return record(std::move(y), std::move(node), {&a, &b});
}

Tensor compare(const char* op, Comparison comparison, const Tensor& a, const Tensor& b) {
  check_same_device(op, {{"a", a}, {"b", b}});
  check_dtype(a.dtype() == b.dtype(), op, "a and b must have one dtype; convert one with .to()", {{"a", a}, {"b", b}});
  const Shape shape = broadcast_shape(op, a.shape(), b.shape());
  Tensor y = empty(shape, DType::boolean, a.device());
  run(current_stream(a.device()), Compare{comparison, broadcast_view(a, shape), broadcast_view(b, shape), buffer_of(y)});
  return y;
}

}  // namespace

Tensor add(const Tensor& a, const Tensor& b) { return add_or_sub("add", false, a, b); }
Tensor sub(const Tensor& a, const Tensor& b) { return add_or_sub("sub", true, a, b); }

Tensor mul(const Tensor& a, const Tensor& b) {
  Tensor y = checked("mul", BinaryFunction::mul, a, b);
  if (!needs_grad({&a, &b})) return y;
  auto node = std::make_shared<MulNode>();
  if (needs_grad({&b})) node->a = Saved("a", a);
  if (needs_grad({&a})) node->b = Saved("b", b);
  return record(std::move(y), std::move(node), {&a, &b});
}

Tensor div(const Tensor& a, const Tensor& b) {
  Tensor y = checked("div", BinaryFunction::div, a, b);
  if (!needs_grad({&a, &b})) return y;
  auto node = std::make_shared<DivNode>();
  node->b = Saved("b", b);
  if (needs_grad({&b})) node->y = Saved("y", y);
  return record(std::move(y), std::move(node), {&a, &b});
}

Tensor maximum(const Tensor& a, const Tensor& b) { return extremum("maximum", true, a, b); }
Tensor minimum(const Tensor& a, const Tensor& b) { return extremum("minimum", false, a, b); }
Tensor equal(const Tensor& a, const Tensor& b) { return compare("equal", Comparison::equal, a, b); }
Tensor less(const Tensor& a, const Tensor& b) { return compare("less", Comparison::less, a, b); }

}  // namespace twinlens
