#include "twinlens/kernels/batch_norm.h"

#include "core/src/ops/elements.h"
#include "core/src/tape.h"

#include "twinlens/core/autograd.h"
#include "twinlens/core/check.h"
#include "twinlens/core/ops.h"

namespace twinlens {
namespace {

// Two floats of a channel for each block.
Tensor scratch_for(const Tensor& rows) {
  const std::int64_t c = rows.size(-1), n = c == 0 ? 0 : rows.count() / c;
  return empty({2 * batch_norm_blocks(n, c), c}, DType::f32, rows.device());
}

struct BatchNormNode final : Node {
  Saved x, mean, variance, gamma, beta;
  Saved y;  // of a relu behind a residual
  double eps = 1e-5;
  bool relu = false, training = false;

  const char* name() const override { return "batch_norm"; }

  void backward(const Tensor& dy_in, Gradients& grads) override {
    const Tensor rows = x.get(), dy = dense_rows(dy_in.to(rows.dtype()));
    const std::int64_t c = rows.size(-1);
    Tensor dx, dresidual, dgamma = empty({c}, DType::f32, rows.device()), dbeta = empty({c}, DType::f32, rows.device());
    if (grads.wants(0)) dx = empty(rows.shape(), rows.dtype(), rows.device());
    if (grads.wants(3)) dresidual = empty(rows.shape(), rows.dtype(), rows.device());
    const Tensor scratch = scratch_for(rows);
    BatchNormBackward args{};
    args.x = const_rows_of(rows);
    if (y.defined()) args.y = const_rows_of(y.get());
    args.dy = const_rows_of(dy);
    args.mean = floats(mean.get());
    args.variance = floats(variance.get());
    args.gamma = floats(gamma.get());
    args.beta = floats(beta.get());
    if (dx.defined()) args.dx = rows_of(dx);
    if (dresidual.defined()) args.dresidual = rows_of(dresidual);
    args.dgamma = floats(dgamma);
    args.dbeta = floats(dbeta);
    args.scratch = floats(scratch);
    args.eps = static_cast<float>(eps);
    args.relu = relu;
    args.batch_statistics = training;
    run(current_stream(rows.device()), args);
    if (dx.defined()) grads.add(0, std::move(dx));
    grads.add(1, std::move(dgamma));
    grads.add(2, std::move(dbeta));
    if (dresidual.defined()) grads.add(3, std::move(dresidual));
  }

  void release() override {
    for (Saved* saved : {&x, &mean, &variance, &gamma, &beta, &y}) saved->reset();
  }
};

// running = (1 - momentum) running + momentum batch, the variance unbiased.
void update_running(Tensor& running, const Tensor& batch, double momentum, double factor) {
  const NoGrad guard;
  running.copy_(add(affine(running, 1.0 - momentum, 0.0), affine(batch, momentum * factor, 0.0)));
}

}  // namespace

Tensor batch_norm(const Tensor& x, const Tensor& gamma, const Tensor& beta, Tensor& running_mean, Tensor& running_var,
                  const BatchNormOptions& options) {
  check(x.rank() >= 2, "batch_norm", "x needs at least two dimensions", {{"x", x}});
  check_compute_dtype("batch_norm", {{"x", x}, {"residual", options.residual}});
  check(options.eps >= 0.0, "batch_norm", "eps = " + std::to_string(options.eps) + " must be 0 or more", {{"x", x}});
  check(options.momentum >= 0.0 && options.momentum <= 1.0, "batch_norm",
        "momentum = " + std::to_string(options.momentum) + " must be in [0, 1]", {{"x", x}});
  if (options.out.has_value()) check_result_dtype("batch_norm", {"x", x}, *options.out);
  const Shape channels{x.size(-1)};
  for (const Named& named :
       {Named{"gamma", gamma}, Named{"beta", beta}, Named{"running_mean", running_mean}, Named{"running_var", running_var}}) {
    check(named.tensor.defined() && named.tensor.shape() == channels, "batch_norm",
          std::string(named.name) + " must match the last dim of x", {{"x", x}, named});
    check_dtype(named.tensor.dtype() == DType::f32 && named.tensor.is_dense(), "batch_norm", std::string(named.name) + " must be dense f32",
                {named});
  }
  check_same_device("batch_norm", {{"x", x},
                                   {"gamma", gamma},
                                   {"beta", beta},
                                   {"running_mean", running_mean},
                                   {"running_var", running_var},
                                   {"residual", options.residual}});
  if (options.residual.defined()) {
    check(options.residual.shape() == x.shape() && options.residual.dtype() == x.dtype(), "batch_norm", "residual must be like x",
          {{"x", x}, {"residual", options.residual}});
  }
  const Tensor rows = dense_rows(x), residual = options.residual.defined() ? dense_rows(options.residual) : options.residual;
  const std::int64_t n = x.size(-1) == 0 ? 0 : x.count() / x.size(-1);
  check(!options.training || n > 1, "batch_norm", "training needs more than one value per channel", {{"x", x}});
  Tensor mean = running_mean, variance = running_var;
  if (options.training) {
    mean = empty(channels, DType::f32, x.device());
    variance = empty(channels, DType::f32, x.device());
    const Tensor scratch = scratch_for(rows);
    run(current_stream(x.device()), BatchNormStatistics{const_rows_of(rows), floats(mean), floats(variance), floats(scratch)});
    if (options.update_running && !runs_again()) {
      update_running(running_mean, mean, options.momentum, 1.0);
      update_running(running_var, variance, options.momentum, static_cast<double>(n) / static_cast<double>(n - 1));
    }
  } else if (grad_enabled()) {
    const NoGrad guard;
    mean = running_mean.clone();
    variance = running_var.clone();
  }
  Tensor y = empty(x.shape(), x.dtype(), x.device());
  BatchNormForward args{};
  args.x = const_rows_of(rows);
  if (residual.defined()) args.residual = const_rows_of(residual);
  args.mean = floats(mean);
  args.variance = floats(variance);
  args.gamma = floats(gamma);
  args.beta = floats(beta);
  args.y = rows_of(y);
  args.eps = static_cast<float>(options.eps);
  args.relu = options.relu;
  run(current_stream(x.device()), args);
  if (needs_grad({&x, &gamma, &beta, &options.residual})) {
    auto node = std::make_shared<BatchNormNode>();
    node->x = Saved("x", rows);
    if (options.relu && residual.defined()) node->y = Saved("y", y);
    node->mean = Saved("mean", mean);
    node->variance = Saved("variance", variance);
    node->gamma = Saved("gamma", gamma);
    node->beta = Saved("beta", beta);
    node->eps = options.eps;
    node->relu = options.relu;
    node->training = options.training;
    y = record(std::move(y), std::move(node), {&x, &gamma, &beta, &options.residual});
  }
  return options.out.has_value() ? y.to(*options.out) : y;
}

}  // namespace twinlens
