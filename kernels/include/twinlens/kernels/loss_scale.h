#pragma once
// Dynamic loss scaling for f16 gradients (Micikevicius et al. 2018, arXiv:1710.03740), with the constants of torch.amp.GradScaler: the
// loss is multiplied by `scale`, and gradients are divided by it before use. An overflow leaves the step out and halves the scale; 2,000
// steps without one double it.
//
// The host keeps one, or a card does (step_verdict.h), by the same rule.

#include <cstdint>

#include "twinlens/kernels/dtype.h"

namespace twinlens {

struct LossScale {
  static constexpr float kFirst = 65536.0F, kLargest = 0x1p24F;
  static constexpr std::int32_t kGrowAfter = 2000;
  float scale = kFirst;
  std::int32_t good_steps = 0;

  // Tells whether the gradients of a step were finite.
  [[gnu::always_inline]] TWINLENS_HOST_DEVICE void count(bool finite) {
    if (!finite) {
      scale = scale > 2.0F ? scale / 2.0F : 1.0F;
      good_steps = 0;
    } else if (++good_steps == kGrowAfter) {
      scale = scale < kLargest ? scale * 2.0F : scale;
      good_steps = 0;
    }
  }
  // An overflow at a scale of one is not the scale's fault.
  [[gnu::always_inline]] TWINLENS_HOST_DEVICE bool may_halve() const { return scale > 1.0F; }
};

}  // namespace twinlens
