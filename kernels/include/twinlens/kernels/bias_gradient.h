#pragma once
// What a linear layer's gradient needs before its two products, in one pass over the rows:
//   dpre = dy * activation'(pre),   dbias = sum of dpre over rows (not rounded to the dtype of dpre; fixed order).

#include "twinlens/kernels/activation.h"
#include "twinlens/kernels/run.h"
#include "twinlens/kernels/view.h"

namespace twinlens {

struct BiasGradient {
  static constexpr const char* kName = "bias_gradient";
  static constexpr bool kCuda = true;
  static constexpr UsesBf16 kBf16 = UsesBf16::rounding;
  // Rows are summed in blocks of kRowsPerBlock, then the blocks, both in a fixed order: the same bits for any thread count.
  static constexpr std::int64_t kRowsPerBlock = 32;
  ConstRows dy;  // (N, C) f32 or bf16
  Activation activation = Activation::none;
  ConstRows pre;             // (N, C) f32 or bf16; unused without activation
  Rows dpre;                 // (N, C) f32 or bf16; data null when not wanted (dy itself serves without activation)
  float* dbias = nullptr;    // (C) or null
  bool accumulate = false;   // dbias += instead of dbias =
  float* scratch = nullptr;  // ceil(N / kRowsPerBlock) * C floats when dbias is wanted
};
template <class I>
void kernel(I, const BiasGradient&);
void launch(Cuda, Stream&, const BiasGradient&);

}  // namespace twinlens
