#include "twinlens/kernels/affine.h"

#include "twinlens/core/autograd.h"
#include "twinlens/core/check.h"
#include "twinlens/core/ops.h"

namespace twinlens {
namespace {

struct AffineNode final : Node {
  double scale = 1.0;
  const char* name() const override { return "affine"; }
  void backward(const Tensor& dy, Gradients& grads) override { grads.add(0, affine(dy, scale, 0.0)); }
  void release() override {}
};

}  // namespace

Tensor affine(const Tensor& x, double scale, double shift) {
  check_compute_dtype("affine", {{"x", x}});
  const Tensor source = dense(x);
  Tensor y = empty(x.shape(), x.dtype(), x.device());
  run(current_stream(x.device()), Affine{const_buffer_of(source), buffer_of(y), static_cast<float>(scale), static_cast<float>(shift)});
  if (!needs_grad({&x})) return y;
  auto node = std::make_shared<AffineNode>();
  node->scale = scale;
  return record(std::move(y), std::move(node), {&x});
}

}  // namespace twinlens
