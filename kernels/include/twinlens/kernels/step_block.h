#pragma once
// What changes from step to step, read by kernels through a pointer and never stored by value, so that a captured CUDA graph can be
// replayed with other numbers. One block per device; on the CPU it is ordinary memory.

#include <cstdint>

namespace twinlens {

struct StepBlock {
  std::uint64_t seed = 0;  // of the run
  std::uint64_t step = 0;  // steps done before this one
  float learning_rate = 0.0F;
  float loss_scale = 1.0F;   // multiplies the loss (fp16); gradients are divided by it before use
  float clip_factor = 1.0F;  // min(1, max_norm / global gradient norm)
  std::int32_t skip = 0;     // non-zero: a gradient was not finite, the optimizer leaves everything as it is
  // Of the steps before this one, those whose update the optimizer's moments do not hold: they were left out, or taken back.
  std::int64_t left_out = 0;
};

}  // namespace twinlens
