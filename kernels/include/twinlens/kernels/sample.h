#pragma once
// One index a row: index[r] = i with probability w_i / sum of w, where w = x or, of logits, e^(x - largest). One random number u in [0, 1)
// of 53 bits a row, a function of (seed, step, site, sample id, position): see philox.h; i is the first whose sum w_0 + ... + w_i exceeds
// u times the whole. A row without a distribution (a weight negative or not a number, a sum that is 0 or not finite) gives -1.

#include "twinlens/kernels/run.h"
#include "twinlens/kernels/step_block.h"
#include "twinlens/kernels/view.h"

namespace twinlens {

struct SampleRows {
  static constexpr const char* kName = "sample";
  static constexpr bool kCuda = true;
  ConstRows x;          // (N, C) float
  std::int64_t* index;  // (N)
  bool logits = false;
  const StepBlock* step = nullptr;
  std::uint64_t site = 0;
  const std::int64_t* sample = nullptr;    // (N), null: the row
  const std::int64_t* position = nullptr;  // (N), null: 0
};
template <class I>
void kernel(I, const SampleRows&);
void launch(Cuda, Stream&, const SampleRows&);

}  // namespace twinlens
