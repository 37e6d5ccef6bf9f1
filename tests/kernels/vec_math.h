#pragma once
// The functions of kernels/cpu/vec/math.h behind the door of kernels, so that each compiled instruction set can be asked.

#include "twinlens/kernels/run.h"

namespace twinlens::test {

enum class MathFunction {
  exp,
  exp_nonpositive,
  log,
  log1p,
  log1p_exp_neg_abs,
  sigmoid,
  sigmoid_rest,
  tanh,
  density,
  tail,
  gelu_loss,
  gelu_slope_loss
};

struct VecMath {
  static constexpr const char* kName = "vec_math";
  static constexpr bool kCuda = false;
  MathFunction function;
  const float* x;
  float* y;
  std::int64_t count;
};
template <class I>
void kernel(I, const VecMath&);

}  // namespace twinlens::test
