#pragma once
// AdamW over flat parameters (Loshchilov & Hutter 2019, arXiv:1711.05101), in the order of torch.optim.AdamW:
//   w -= lr * decay * w;  m = b1 m + (1 - b1) g;  v = b2 v + (1 - b2) g^2;
//   w -= lr / (1 - b1^t) * m / (sqrt(v) / sqrt(1 - b2^t) + eps),  t = step->step - step->left_out + 1, lr = step->learning_rate *
//   segment.lr_factor.
// g is the gradient times step->clip_factor / step->loss_scale. Nothing is written when step->skip is set; such a step does not count in
// t (left_out), as with torch.amp.GradScaler.

#include "twinlens/kernels/run.h"
#include "twinlens/kernels/step_block.h"
#include "twinlens/kernels/view.h"

namespace twinlens {

// One parameter of a flat block. On CUDA the table, as everything else, lies in device memory; segments stand in order of their offsets
// and do not overlap.
struct OptimizerSegment {
  std::int64_t offset = 0, size = 0;
  float lr_factor = 1.0F;
  float decay = 0.0F;  // 1: weight decay applies, 0: not
  std::int32_t frozen = 0;
  std::int32_t unused = 0;
};

struct AdamW {
  static constexpr const char* kName = "adamw";
  static constexpr bool kCuda = true;
  const OptimizerSegment* segments;
  std::int64_t segment_count;
  std::int64_t extent;  // elements of the flat block: no segment ends beyond it
  float* value;
  const float* gradient;
  float* moment1;
  float* moment2;
  bf16* shadow;  // written with the rounded new value; or null
  double beta1, beta2, eps, weight_decay;
  const StepBlock* step;
};
template <class I>
void kernel(I, const AdamW&);
void launch(Cuda, Stream&, const AdamW&);

// SGD with momentum as torch.optim.SGD (dampening 0): g += decay * w;  m = momentum m + g;  w -= lr * (nesterov ? g + momentum m : m).
struct SgdMomentum {
  static constexpr const char* kName = "sgd_momentum";
  static constexpr bool kCuda = true;
  const OptimizerSegment* segments;
  std::int64_t segment_count;
  std::int64_t extent;  // elements of the flat block: no segment ends beyond it
  float* value;
  const float* gradient;
  float* moment;
  bf16* shadow;
  double momentum, weight_decay;
  bool nesterov;
  const StepBlock* step;
};
template <class I>
void kernel(I, const SgdMomentum&);
void launch(Cuda, Stream&, const SgdMomentum&);

}  // namespace twinlens
