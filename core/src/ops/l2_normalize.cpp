#include "twinlens/kernels/l2_normalize.h"

#include "core/src/ops/elements.h"

#include "twinlens/core/autograd.h"
#include "twinlens/core/check.h"
#include "twinlens/core/ops.h"

namespace twinlens {
namespace {

struct L2NormalizeNode final : Node {
  Saved y, norm;
  float eps = 0.0F;

  const char* name() const override { return "l2_normalize"; }

  void backward(const Tensor& dy_in, Gradients& grads) override {
    const Tensor& result = y.get();
    const Tensor dy = dense_rows(dy_in);
    Tensor dx = empty(result.shape(), result.dtype(), result.device());
    run(current_stream(result.device()),
        L2NormalizeBackward{const_rows_of(result), const_rows_of(dy), static_cast<const float*>(norm.get().raw()), rows_of(dx), eps});
    grads.add(0, std::move(dx));
  }

  void release() override {
    for (Saved* saved : {&y, &norm}) saved->reset();
  }
};

}  // namespace

Tensor l2_normalize(const Tensor& x, double eps) {
  check(x.rank() >= 1, "l2_normalize", "x needs at least one dimension", {{"x", x}});
  check_compute_dtype("l2_normalize", {{"x", x}});
  check(eps >= 0.0, "l2_normalize", "eps = " + std::to_string(eps) + " must be 0 or more", {{"x", x}});
  const Tensor rows = dense_rows(x);
  Tensor y = empty(x.shape(), x.dtype(), x.device());
  Tensor norm = empty({x.shape().without(-1).count()}, DType::f32, x.device());
  run(current_stream(x.device()), L2NormalizeForward{const_rows_of(rows), rows_of(y), floats(norm), static_cast<float>(eps)});
  if (!needs_grad({&x})) return y;
  auto node = std::make_shared<L2NormalizeNode>();
  node->y = Saved("y", y);
  node->norm = Saved("norm", norm);
  node->eps = static_cast<float>(eps);
  return record(std::move(y), std::move(node), {&x});
}

}  // namespace twinlens
