#include "twinlens/kernels/upsample.h"

#include "twinlens/core/autograd.h"
#include "twinlens/core/check.h"
#include "twinlens/core/ops.h"

namespace twinlens {
namespace {

struct UpsampleNode final : Node {
  Shape shape;
  std::int64_t factor = 1;

  const char* name() const override { return "upsample_nearest"; }

  void backward(const Tensor& dy_in, Gradients& grads) override {
    if (!grads.wants(0)) return;
    const Tensor dy = dense(dy_in);
    Tensor dx = empty(shape, dy.dtype(), dy.device());
    run(current_stream(dy.device()), UpsampleBackward{const_buffer_of(dy), dx.raw(), shape[0] * shape[1], shape[2], shape[3], factor});
    grads.add(0, std::move(dx));
  }

  void release() override {}
};

}  // namespace

Tensor upsample_nearest(const Tensor& x, int factor) {
  check_compute_dtype("upsample_nearest", {{"x", x}});
  check(x.rank() == 4, "upsample_nearest", "x must be (B, H, W, C)", {{"x", x}});
  check(factor >= 1, "upsample_nearest", "factor must be 1 or more, not " + std::to_string(factor), {{"x", x}});
  const Tensor source = dense(x);
  Tensor y = empty({x.size(0), x.size(1) * factor, x.size(2) * factor, x.size(3)}, x.dtype(), x.device());
  run(current_stream(x.device()), UpsampleForward{const_buffer_of(source), y.raw(), x.size(0) * x.size(1), x.size(2), x.size(3), factor});
  if (!needs_grad({&x})) return y;
  auto node = std::make_shared<UpsampleNode>();
  node->shape = x.shape();
  node->factor = factor;
  return record(std::move(y), std::move(node), {&x});
}

}  // namespace twinlens
