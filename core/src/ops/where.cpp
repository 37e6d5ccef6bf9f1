// where and masked_fill: elements chosen by a mask.

#include "twinlens/kernels/where.h"

#include "core/src/ops/broadcast.h"

#include "twinlens/core/autograd.h"
#include "twinlens/core/check.h"
#include "twinlens/core/ops.h"

namespace twinlens {
namespace {

struct WhereNode final : Node {
  Saved mask;
  const char* name() const override { return "where"; }
  void backward(const Tensor& dy, Gradients& grads) override {
    const Tensor zero = zeros({}, dy.dtype(), dy.device());
    if (grads.wants(0)) grads.add(0, sum_to(where(mask.get(), dy, zero), input_shapes[0]));
    if (grads.wants(1)) grads.add(1, sum_to(where(mask.get(), zero, dy), input_shapes[1]));
  }
  void release() override { mask.reset(); }
};

}  // namespace

Tensor where(const Tensor& mask, const Tensor& a, const Tensor& b) {
  check_same_device("where", {{"mask", mask}, {"a", a}, {"b", b}});
  check_dtype(mask.dtype() == DType::boolean, "where", "mask must be bool", {{"mask", mask}});
  check_dtype(a.dtype() == b.dtype(), "where", "a and b must have one dtype; convert one with .to()", {{"a", a}, {"b", b}});
  const Shape shape = broadcast_shape("where", broadcast_shape("where", a.shape(), b.shape()), mask.shape());
  Tensor y = empty(shape, a.dtype(), a.device());
  run(current_stream(a.device()), Choose{broadcast_view(mask, shape), broadcast_view(a, shape), broadcast_view(b, shape), buffer_of(y)});
  if (!needs_grad({&a, &b})) return y;
  auto node = std::make_shared<WhereNode>();
  node->mask = Saved("mask", mask);
  return record(std::move(y), std::move(node), {&a, &b});
}

Tensor masked_fill(const Tensor& x, const Tensor& mask, double value) {
  check(broadcast_shape("masked_fill", x.shape(), mask.shape()) == x.shape(), "masked_fill", "mask must broadcast to the shape of x",
        {{"x", x}, {"mask", mask}});
  check_dtype(mask.dtype() == DType::boolean, "masked_fill", "mask must be bool", {{"mask", mask}});
  return where(mask, full({}, value, x.dtype(), x.device()), x);
}

}  // namespace twinlens
