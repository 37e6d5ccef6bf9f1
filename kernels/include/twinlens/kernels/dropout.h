#pragma once
// y = x / (1 - p) where the element's random number is at least p, else 0 (Srivastava et al. 2014). The number is a function of (seed,
// step, site, sample id, position * C + column): see philox.h. Backward is the same map of dy.

#include "twinlens/kernels/run.h"
#include "twinlens/kernels/step_block.h"
#include "twinlens/kernels/view.h"

namespace twinlens {

struct DropoutRows {
  static constexpr const char* kName = "dropout";
  static constexpr bool kCuda = true;
  ConstRows x;  // (N, C) float
  Rows y;       // (N, C) the same dtype
  double p = 0.0;
  const StepBlock* step = nullptr;
  std::uint64_t site = 0;
  const std::int64_t* sample = nullptr;    // (N), null: the row
  const std::int64_t* position = nullptr;  // (N), null: 0
};
template <class I>
void kernel(I, const DropoutRows&);
void launch(Cuda, Stream&, const DropoutRows&);

}  // namespace twinlens
