#include "twinlens/core/softsign.h"

#include "twinlens/core/autograd.h"
#include "twinlens/core/check.h"
#include "twinlens/kernels/softsign.h"

namespace twinlens {
namespace {

struct SoftsignNode final : Node {
  Saved x;

  const char* name() const override { return "softsign"; }

  void backward(const Tensor& dy_in, Gradients& grads) override {
    const Tensor& source = x.get();
    const Tensor dy = dense(dy_in);
    Tensor dx = empty(source.shape(), source.dtype(), source.device());
    run(current_stream(source.device()), SoftsignBackward{const_buffer_of(source), const_buffer_of(dy), buffer_of(dx)});
    grads.add(0, std::move(dx));
  }

  void release() override { x.reset(); }
};

}  // namespace

Tensor softsign(const Tensor& x) {
  check_compute_dtype("softsign", {{"x", x}});
  const Tensor source = dense(x);
  Tensor y = empty(x.shape(), x.dtype(), x.device());
  run(current_stream(x.device()), SoftsignForward{const_buffer_of(source), buffer_of(y)});
  if (!needs_grad({&x})) return y;
  auto node = std::make_shared<SoftsignNode>();
  node->x = Saved("x", source);
  return record(std::move(y), std::move(node), {&x});
}

}  // namespace twinlens
