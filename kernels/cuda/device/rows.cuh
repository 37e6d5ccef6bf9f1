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

// The sum over a group of kThreads threads of a block, in a fixed order, in every thread of the group. For kThreads = 32 the group is a
// warp; otherwise it is the block, and all its threads must come here.
template <int kThreads>
__device__ inline float group_sum(float x) {
#pragma unroll
  for (int offset = kWarp / 2; offset > 0; offset /= 2) x += __shfl_xor_sync(0xFFFFFFFFU, x, offset);
  if constexpr (kThreads > kWarp) {
    __shared__ float of_warp[kThreads / kWarp];
    __syncthreads();  // an earlier sum may still be read
    if (threadIdx.x % kWarp == 0) of_warp[threadIdx.x / kWarp] = x;
    __syncthreads();
    x = 0.0F;
#pragma unroll
    for (int w = 0; w < kThreads / kWarp; ++w) x += of_warp[w];
  }
  return x;
}

}  // namespace twinlens::cuda
