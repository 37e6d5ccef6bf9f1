#pragma once
// AdamW (Loshchilov & Hutter 2019, arXiv:1711.05101, as torch.optim.AdamW) and SGD with momentum (as torch.optim.SGD) over flat
// parameters, one kernel each. Learning rate, step count, clip factor and skip flag come from the StepBlock.

#include "twinlens/kernels/step_verdict.h"
#include "twinlens/nn/flat_parameters.h"

namespace twinlens {

struct AdamWOptions {
  double beta1 = 0.9, beta2 = 0.98, eps = 1e-6, weight_decay = 0.2;
};
// With a step block of the host, which is copied to the parameters' device, or with one that lies there already (step_block_on).
void adamw_step(FlatParameters& parameters, const StepBlock& step, const AdamWOptions& options);
void adamw_step(FlatParameters& parameters, const Tensor& step, const AdamWOptions& options);

struct SgdOptions {
  double momentum = 0.9, weight_decay = 0.0;
  bool nesterov = false;
};
void sgd_step(FlatParameters& parameters, const StepBlock& step, const SgdOptions& options);
void sgd_step(FlatParameters& parameters, const Tensor& step, const SgdOptions& options);

// Looks at the loss and the gradient norm where they are and writes clip factor and skip flag into a step block of step_block_on, and what
// the host may read later into `record`, a StepRecord in memory of that device (kernels/step_verdict.h).
void judge_step(const FlatParameters& parameters, const Tensor& loss, const Tensor& step, const Tensor& record, double max_norm);

// min(1, max_norm / (norm + 1e-6)), torch.nn.utils.clip_grad_norm_'s factor; 1 when max_norm is 0 (off).
float clip_factor(double norm, double max_norm);

// Exponential moving average of the parameter values: average = decay * average + (1 - decay) * value.
class Ema {
 public:
  Ema(const FlatParameters& parameters, double decay);
  void update(const FlatParameters& parameters);
  // Exchanges the averages with the live values (evaluate with the averages, then swap back).
  void swap(FlatParameters& parameters);
  Tensor average;  // (n) f32
  double decay;
};

}  // namespace twinlens
