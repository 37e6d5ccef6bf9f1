#pragma once
// Operands of one broadcast shape in device code.

#include "kernels/cpu/strided_plan.h"

namespace twinlens::cuda {

// Where element i of the common shape lies in each operand.
template <int N>
__device__ inline void strided_offsets(const StridedPlan<N>& p, std::int64_t i, std::int64_t (&at)[N]) {
#pragma unroll
  for (int k = 0; k < N; ++k) at[k] = 0;
  for (int d = p.rank - 1; d > 0; --d) {
    const std::int64_t rest = i / p.shape[d], index = i - rest * p.shape[d];
#pragma unroll
    for (int k = 0; k < N; ++k) at[k] += index * p.strides[k][d];
    i = rest;
  }
#pragma unroll
  for (int k = 0; k < N; ++k) at[k] += i * p.strides[k][0];
}

// Elements of a thread as a constant.
template <int n>
struct Lanes {
  static constexpr int value = n;
};

}  // namespace twinlens::cuda
