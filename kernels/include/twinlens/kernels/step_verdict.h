#pragma once
// What becomes of a step, decided where its numbers are: the optimizer finds clip factor and skip flag in the step block, and the host
// reads the record when it comes to it.
//   norm = gradient_norm / step->loss_scale
//   step->clip_factor = min(1, max_norm / (norm + 1e-6)) in f64; 1 where max_norm is 0 or the step is left out
//   step->skip = record->skip = 1 when the loss or the norm is not finite, or a step before it was left out (but see below)
// So once a step is left out all that follow are, until the host has cleared the record: weights stay as they were before the first.
//
// With f16 the norm alone may be infinite because the scale is too large: record->overflow. Such a step is left out by step->skip
// alone, and no other one for its sake; the scale of the next step follows from it, and step->left_out grows by one.

#include "twinlens/kernels/loss_scale.h"
#include "twinlens/kernels/run.h"
#include "twinlens/kernels/step_block.h"

namespace twinlens {

struct StepRecord {
  float loss = 0.0F, norm = 0.0F;
  float clip_factor = 1.0F;
  std::int32_t skip = 0;
  std::int32_t overflow = 0;
  float loss_scale = 1.0F;    // of the step
  LossScale next;             // what follows from it; with f16
  std::int64_t left_out = 0;  // what the step block says after it
};

struct StepVerdict {
  static constexpr const char* kName = "step_verdict";
  static constexpr bool kCuda = true;
  const float* loss;           // 1
  const float* gradient_norm;  // 1; of gradients that are still multiplied by the loss scale
  double max_norm;
  StepBlock* step;
  StepRecord* record;
  LossScale* scaling;  // f16: that of the step, which becomes that of the next one; else null

  // The rule, for the host and a card.
  [[gnu::always_inline]] TWINLENS_HOST_DEVICE void decide() const {
    const float value = *loss, norm = *gradient_norm / step->loss_scale;
    const bool stopped_before = record->skip != 0;
    const bool overflow = scaling != nullptr && !stopped_before && is_finite(value) && !is_finite(norm) && scaling->may_halve();
    const bool stopped = stopped_before || (!overflow && (!is_finite(value) || !is_finite(norm)));
    const bool skip = stopped || overflow;
    const double factor = max_norm / (static_cast<double>(norm) + 1e-6);
    const float clip = !skip && max_norm > 0.0 && factor < 1.0 ? static_cast<float>(factor) : 1.0F;
    step->clip_factor = clip;
    step->skip = skip ? 1 : 0;
    if (overflow) step->left_out += 1;  // (this one's update does not look)
    if (scaling != nullptr && !stopped) scaling->count(!overflow);
    *record = StepRecord{
        value,         norm, clip, stopped ? 1 : 0, overflow ? 1 : 0, step->loss_scale, scaling != nullptr ? *scaling : LossScale{},
        step->left_out};
  }

  [[gnu::always_inline]] TWINLENS_HOST_DEVICE static bool is_finite(float x) { return x - x == 0.0F; }
};
template <class I>
void kernel(I, const StepVerdict&);
void launch(Cuda, Stream&, const StepVerdict&);

}  // namespace twinlens
