// softmax and log_softmax over the last dimension.

#include "twinlens/kernels/softmax.h"

#include "twinlens/core/autograd.h"
#include "twinlens/core/check.h"
#include "twinlens/core/ops.h"

namespace twinlens {
namespace {

struct SoftmaxNode final : Node {
  Saved y;
  bool log = false;

  const char* name() const override { return log ? "log_softmax" : "softmax"; }

  void backward(const Tensor& dy_in, Gradients& grads) override {
    const Tensor& result = y.get();
    const Tensor dy = dense_rows(dy_in);
    Tensor dx = empty(result.shape(), result.dtype(), result.device());
    run(current_stream(result.device()), SoftmaxBackward{const_rows_of(result), const_rows_of(dy), rows_of(dx), log});
    grads.add(0, std::move(dx));
  }

  void release() override { y.reset(); }
};

Tensor softmax_or_log(const char* op, const Tensor& x, bool log) {
  check(x.rank() >= 1, op, "x needs at least one dimension", {{"x", x}});
  check_compute_dtype(op, {{"x", x}});
  const Tensor rows = dense_rows(x);
  Tensor y = empty(x.shape(), x.dtype(), x.device());
  run(current_stream(x.device()), SoftmaxForward{const_rows_of(rows), rows_of(y), log});
  if (!needs_grad({&x})) return y;
  auto node = std::make_shared<SoftmaxNode>();
  node->y = Saved("y", y);
  node->log = log;
  return record(std::move(y), std::move(node), {&x});
}

}  // namespace

Tensor softmax(const Tensor& x) { return softmax_or_log("softmax", x, false); }
Tensor log_softmax(const Tensor& x) { return softmax_or_log("log_softmax", x, true); }

}  // namespace twinlens
