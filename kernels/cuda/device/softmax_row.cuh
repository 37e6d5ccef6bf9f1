#pragma once
// The two numbers of a row that softmax, log-softmax and cross-entropy are made of, see kernels/cpu/vec/softmax_row.h: the maximum and
// the sum over the other columns of exp(x - maximum).

#include "kernels/cuda/device/element.cuh"
#include "kernels/cuda/device/rows.cuh"

namespace twinlens::cuda {

struct SoftmaxRow {
  float max, others;
};

// All threads of the group come here and get the same.
template <int kThreads, class T>
__device__ inline SoftmaxRow softmax_row(const T* x, std::int64_t c, bool aligned) {
  constexpr int W = kPack<T>;
  const float lowest = -__builtin_inff();
  float largest = lowest, v[W];
  for_row_packs<kThreads, W>(c, [&](std::int64_t i, std::int64_t n) {
    load_pack(x + i, n, aligned, v);
#pragma unroll
    for (int k = 0; k < W; ++k) largest = k < n ? fmaxf(largest, v[k]) : largest;
  });
  const float max = group_max<kThreads>(largest);
  float maxima = 0.0F, sum = 0.0F;
  for_row_packs<kThreads, W>(c, [&](std::int64_t i, std::int64_t n) {
    load_pack(x + i, n, aligned, v);
#pragma unroll
    for (int k = 0; k < W; ++k) {
      const bool at_max = v[k] == max;
      maxima += k < n && at_max ? 1.0F : 0.0F;
      sum += k < n && !at_max ? expf(v[k] - max) : 0.0F;
    }
  });
  // One of the columns that hold the maximum is left out.
  return {max, group_sum<kThreads>(maxima) - 1.0F + group_sum<kThreads>(sum) + (max - max)};  // NaN of an infinite maximum
}

}  // namespace twinlens::cuda
