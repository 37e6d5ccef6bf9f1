#pragma once
// Dynamic loss scaling for f16 gradients (Micikevicius et al. 2018, arXiv:1710.03740), with the constants of torch.amp.GradScaler: the
// loss is multiplied by `scale`, and gradients are divided by it before use. An overflow leaves the step out and halves the scale; 2,000
// steps without one double it.

#include <cstdint>

namespace twinlens {

struct LossScaler {
  static constexpr double kFirst = 65536.0, kLargest = 0x1p24;
  static constexpr std::int64_t kGrowAfter = 2000;
  double scale = kFirst;
  std::int64_t good_steps = 0;

  // Tells whether the gradients of a step were finite.
  void count(bool finite) {
    if (!finite) {
      scale = scale > 2.0 ? scale / 2.0 : 1.0;
      good_steps = 0;
    } else if (++good_steps == kGrowAfter) {
      scale = scale < kLargest ? scale * 2.0 : scale;
      good_steps = 0;
    }
  }
  // An overflow at a scale of one is not the scale's fault.
  bool may_halve() const { return scale > 1.0; }
};

}  // namespace twinlens
