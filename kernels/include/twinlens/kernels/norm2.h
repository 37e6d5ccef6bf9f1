#pragma once
// Sum of squares and number of non-finite elements of a buffer, in f64, in blocks of kBlock and then blocks in order.

#include "twinlens/kernels/run.h"
#include "twinlens/kernels/view.h"

namespace twinlens {

struct SumOfSquares {
  static constexpr const char* kName = "sum_of_squares";
  static constexpr bool kCuda = true;
  static constexpr std::int64_t kBlock = 16384;
  ConstBuffer x;            // f32 or bf16
  double* scratch;          // 2 * ceil(count / kBlock)
  float* root;              // 1: sqrt of the sum of squares
  std::int64_t* nonfinite;  // 1
};
template <class I>
void kernel(I, const SumOfSquares&);
void launch(Cuda, Stream&, const SumOfSquares&);

}  // namespace twinlens
