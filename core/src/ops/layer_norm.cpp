#include "twinlens/kernels/layer_norm.h"

#include "core/src/ops/elements.h"

#include "twinlens/core/autograd.h"
#include "twinlens/core/check.h"
#include "twinlens/core/ops.h"

namespace twinlens {
namespace {

const float* floats_or_null(const Tensor& x) { return x.defined() ? floats(x) : nullptr; }

struct LayerNormNode final : Node {
  Saved x, gamma, mean, rstd;

  const char* name() const override { return "layer_norm"; }

  void backward(const Tensor& dy_in, Gradients& grads) override {
    const Tensor rows = x.get();
    const Tensor dy = dense_rows(dy_in);
    const std::int64_t c = rows.size(-1), n = c == 0 ? 0 : rows.count() / c;
    Tensor dx, dgamma, dbeta, scratch;
    if (grads.wants(0)) dx = empty(rows.shape(), rows.dtype(), rows.device());
    if (grads.wants(1)) dgamma = empty({c}, DType::f32, rows.device());
    if (grads.wants(2)) dbeta = empty({c}, DType::f32, rows.device());
    if (dgamma.defined() || dbeta.defined()) {
      const std::int64_t blocks = (n + LayerNormBackward::kRowsPerBlock - 1) / LayerNormBackward::kRowsPerBlock;
      scratch = empty({2, blocks, c}, DType::f32, rows.device());
    }
    LayerNormBackward args{};
    args.x = const_rows_of(rows);
    args.dy = const_rows_of(dy);
    args.gamma = floats_or_null(gamma.get());
    args.mean = floats_or_null(mean.get());
    args.rstd = floats_or_null(rstd.get());
    if (dx.defined()) args.dx = rows_of(dx);
    if (dgamma.defined()) args.dgamma = floats(dgamma);
    if (dbeta.defined()) args.dbeta = floats(dbeta);
    if (scratch.defined()) args.scratch = floats(scratch);
    run(current_stream(rows.device()), args);
    if (dx.defined()) grads.add(0, std::move(dx));
    if (dgamma.defined()) grads.add(1, std::move(dgamma));
    if (dbeta.defined()) grads.add(2, std::move(dbeta));
  }

  void release() override {
    for (Saved* saved : {&x, &gamma, &mean, &rstd}) saved->reset();
  }
};

}  // namespace

Tensor layer_norm(const Tensor& x, const Tensor& gamma, const Tensor& beta, double eps, std::optional<DType> out, bool recompute) {
  check(x.rank() >= 1, "layer_norm", "x needs at least one dimension", {{"x", x}});
  check_compute_dtype("layer_norm", {{"x", x}});
  check(eps >= 0.0, "layer_norm", "eps = " + std::to_string(eps) + " must be 0 or more", {{"x", x}});
  check_same_device("layer_norm", {{"x", x}, {"gamma", gamma}, {"beta", beta}});
  const Shape columns{x.size(-1)};
  if (gamma.defined()) {
    check(gamma.shape() == columns, "layer_norm", "gamma must match the last dim of x", {{"x", x}, {"gamma", gamma}});
    check_dtype(gamma.dtype() == DType::f32 && gamma.is_dense(), "layer_norm", "gamma must be dense f32", {{"gamma", gamma}});
  }
  if (beta.defined()) {
    check(beta.shape() == columns, "layer_norm", "beta must match the last dim of x", {{"x", x}, {"beta", beta}});
    check_dtype(beta.dtype() == DType::f32 && beta.is_dense(), "layer_norm", "beta must be dense f32", {{"beta", beta}});
  }

  const Tensor rows = dense_rows(x);
  const std::int64_t n = const_rows_of(rows).rows;  // rows of no columns have statistics, too
  Tensor y = empty(x.shape(), check_result_dtype("layer_norm", {"x", x}, out.value_or(x.dtype())), x.device());
  Tensor mean = empty({n}, DType::f32, x.device());
  Tensor rstd = empty({n}, DType::f32, x.device());
  run(current_stream(x.device()), LayerNormForward{const_rows_of(rows), floats_or_null(gamma), floats_or_null(beta), rows_of(y),
                                                   floats(mean), floats(rstd), static_cast<float>(eps)});
  if (!needs_grad({&x, &gamma, &beta})) return y;
  auto node = std::make_shared<LayerNormNode>();
  node->x = Saved("x", rows);
  node->gamma = Saved("gamma", gamma);
  node->mean = Saved("mean", mean);
  node->rstd = Saved("rstd", rstd);
  if (recompute) {
    set_recipe(y, [from = node->x, gain = node->gamma, shift = Saved("beta", beta), eps, dtype = y.dtype()] {
      return layer_norm(from.get(), gain.get(), shift.get(), eps, dtype);
    });
  }
  return record(std::move(y), std::move(node), {&x, &gamma, &beta});
}

}  // namespace twinlens
