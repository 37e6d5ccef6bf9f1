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

// AdamW inside backward(): a parameter is updated as soon as its gradient is complete, and the gradient is let go, so that the gradients of
// a model, as large as the model, never lie in memory together. The same bits as backward() and then adamw_step(). There is no time
// between all gradients and the first update: no clipping by the global norm, no skipping of a step, no gradients of several backward()s.
// `parameters` must be without a gradient block; they and `step` (where kernels on their device can read it) must live as long as this.
class AdamWInBackward {
 public:
  // `with_norms`: gradient_norm() is wanted, a pass over each gradient.
  AdamWInBackward(FlatParameters& parameters, const StepBlock* step, const AdamWOptions& options, bool with_norms);
  ~AdamWInBackward();
  AdamWInBackward(const AdamWInBackward&) = delete;
  AdamWInBackward& operator=(const AdamWInBackward&) = delete;

  // After each backward(): parameters that it gave no gradient take their step with one of zeros, as adamw_step has them.
  void finish_step();
  // 2-norm of the gradients of the last step, or of those parameters whose name satisfies `wanted`; read back to the host.
  double gradient_norm() const;
  double gradient_norm(const std::function<bool(const std::string& name)>& wanted) const;

 private:
  void update(std::size_t i, const Tensor& gradient);
  FlatParameters& p_;
  const StepBlock* step_;
  AdamWOptions options_;
  bool with_norms_;
  std::vector<Tensor> norms_;  // by segment
  std::vector<bool> updated_;
};

struct SgdOptions {
  double momentum = 0.9, weight_decay = 0.0;
  bool nesterov = false;
};
void sgd_step(FlatParameters& parameters, const StepBlock& step, const SgdOptions& options);
void sgd_step(FlatParameters& parameters, const Tensor& step, const SgdOptions& options);

// Looks at the loss and the gradient norm where they are and writes clip factor and skip flag into a step block of step_block_on, and what
// the host may read later into `record`, a StepRecord in memory of that device (kernels/step_verdict.h). `scaling`: the LossScale of f16
// in that memory, for the next step; absent without.
void judge_step(const FlatParameters& parameters, const Tensor& loss, const Tensor& step, const Tensor& record, double max_norm,
                const Tensor& scaling = {});

// min(1, max_norm / (norm + 1e-6)), torch.nn.utils.clip_grad_norm_'s factor; 1 when max_norm is 0 (off). A norm that is NaN gives 1, where
// clip_grad_norm_ gives NaN and with it every gradient: whoever wants no such step sets StepBlock::skip by the norm.
float clip_factor(double norm, double max_norm);

// Exponential moving average of the parameter values: average += (1 - decay) * (value - average). What stands still stays, to the bit.
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
