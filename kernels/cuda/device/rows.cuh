#pragma once
// Rows in device code: where they are, how many count, and sums over the threads that share one.

#include <cstdint>

#include "kernels/cuda/geometry.h"

#include "twinlens/kernels/view.h"

namespace twinlens::cuda {

template <class T>
__device__ inline const T* row_of(const ConstRows& a, std::int64_t r) {
  return static_cast<const T*>(a.data) + r * a.stride;
}
template <class T>
__device__ inline T* row_of(const Rows& a, std::int64_t r) {
  return static_cast<T*>(a.data) + r * a.stride;
}

// Kernels are launched for the capacity and stop here; `valid` is device memory.
__device__ inline std::int64_t valid_rows(const ConstRows& a) { return a.valid != nullptr && *a.valid < a.rows ? *a.valid : a.rows; }

template <class T>
__device__ inline T shuffled(T x, int offset) {
  return __shfl_xor_sync(0xFFFFFFFFU, x, offset);
}

// `x` of all threads of a group of kThreads combined in a fixed order, in every thread of the group. For kThreads = 32 the group is a
// warp; otherwise it is the block, and all its threads must come here. `join` is commutative, so every lane gets the same bits.
template <int kThreads, class T, class Join>
__device__ inline T group_reduce(T x, Join join) {
#pragma unroll
  for (int offset = kWarp / 2; offset > 0; offset /= 2) x = join(x, shuffled(x, offset));
  if constexpr (kThreads > kWarp) {
    __shared__ T of_warp[kThreads / kWarp];
    __syncthreads();  // an earlier result may still be read
    if (threadIdx.x % kWarp == 0) of_warp[threadIdx.x / kWarp] = x;
    __syncthreads();
    x = of_warp[0];
#pragma unroll
    for (int w = 1; w < kThreads / kWarp; ++w) x = join(x, of_warp[w]);
  }
  return x;
}

template <int kThreads>
__device__ inline float group_sum(float x) {
  return group_reduce<kThreads>(x, [](float a, float b) { return a + b; });
}
template <int kThreads>
__device__ inline double group_sum(double x) {
  return group_reduce<kThreads>(x, [](double a, double b) { return a + b; });
}
// NaN is passed over.
template <int kThreads>
__device__ inline float group_max(float x) {
  return group_reduce<kThreads>(x, [](float a, float b) { return fmaxf(a, b); });
}

// Calls f(i, n) for the packs of W elements that this thread of the group takes of a row of c: those from i on, of which n are left.
template <int kThreads, int W, class F>
__device__ inline void for_row_packs(std::int64_t c, F f) {
  for (std::int64_t i = std::int64_t{threadIdx.x} * W; i < c; i += kThreads * W) f(i, c - i);
}

// The row of this group of threads, for kernels launched by row_launch().
__device__ inline std::int64_t group_row() { return std::int64_t{blockIdx.x} * blockDim.y + threadIdx.y; }

}  // namespace twinlens::cuda
