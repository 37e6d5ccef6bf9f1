#pragma once
// What kernels/cuda uses of the CUDA runtime and of the language, for a compiler of C++: see threads.h. Calls of the runtime are done at
// once, since the fake card makes launches when their turn in the stream has come.

#include <bit>
#include <cmath>
#include <cstdint>
#include <cstring>

#include "tests/fake_card/emulation/threads.h"

#define __global__
#define __device__
#define __forceinline__ inline __attribute__((always_inline))
#define __host__
#define __shared__ static  // of all threads of a block; blocks run one after another

#define threadIdx (::twinlens::emulated::thread_index)
#define blockIdx (::twinlens::emulated::block_index)
#define blockDim (::twinlens::emulated::block_size)
#define gridDim (::twinlens::emulated::grid_size)

using dim3 = ::twinlens::emulated::Index3;
struct alignas(8) uint2 {
  unsigned x, y;
};
struct alignas(16) uint4 {
  unsigned x, y, z, w;
};
struct alignas(8) float2 {
  float x, y;
};
struct alignas(16) float4 {
  float x, y, z, w;
};
inline float4 make_float4(float x, float y, float z, float w) { return {x, y, z, w}; }

using cudaStream_t = void*;
enum cudaError_t { cudaSuccess };
enum cudaMemcpyKind { cudaMemcpyDeviceToDevice };
enum cudaDeviceAttr { cudaDevAttrMultiProcessorCount, cudaDevAttrMaxSharedMemoryPerBlockOptin };
enum cudaFuncAttribute { cudaFuncAttributeMaxDynamicSharedMemorySize };

inline cudaError_t cudaMemcpyAsync(void* to, const void* from, std::size_t bytes, cudaMemcpyKind, cudaStream_t) {
  std::memmove(to, from, bytes);
  return cudaSuccess;
}
inline cudaError_t cudaMemsetAsync(void* to, int value, std::size_t bytes, cudaStream_t) {
  std::memset(to, value, bytes);
  return cudaSuccess;
}
inline cudaError_t cudaDeviceGetAttribute(int* value, cudaDeviceAttr attribute, int) {
  const auto& card = ::twinlens::emulated::card();
  *value = attribute == cudaDevAttrMultiProcessorCount ? card.processors : card.shared_bytes;
  return cudaSuccess;
}
template <class Kernel>
cudaError_t cudaFuncSetAttribute(Kernel, cudaFuncAttribute, int) {
  return cudaSuccess;
}

inline void __syncthreads() { ::twinlens::emulated::wait_for_block(); }
inline void __syncwarp(unsigned mask = ~0U) { ::twinlens::emulated::exchange(mask, "", 0); }

template <class T>
T __shfl_sync(unsigned mask, T x, int from) {
  return ::twinlens::emulated::from_lane(mask, x, from);
}
template <class T>
T __shfl_xor_sync(unsigned mask, T x, int bits) {
  return ::twinlens::emulated::from_lane(mask, x, ::twinlens::emulated::lane() ^ bits);
}
template <class T>
T __shfl_up_sync(unsigned mask, T x, unsigned steps) {
  return ::twinlens::emulated::from_lane(mask, x, ::twinlens::emulated::lane() - static_cast<int>(steps));
}
template <class T>
T __shfl_down_sync(unsigned mask, T x, unsigned steps) {
  return ::twinlens::emulated::from_lane(mask, x, ::twinlens::emulated::lane() + static_cast<int>(steps));
}
template <class T>
unsigned __match_any_sync(unsigned mask, T x) {
  const auto& all = ::twinlens::emulated::exchange(mask, &x, sizeof x);
  unsigned same = 0;
  for (int i = 0; i < 32; ++i) {
    if ((mask >> i & 1U) != 0 && std::memcmp(all.bytes[i], &x, sizeof x) == 0) same |= 1U << i;
  }
  return same;
}
inline unsigned __ballot_sync(unsigned mask, bool yes) {
  const auto& all = ::twinlens::emulated::exchange(mask, &yes, sizeof yes);
  unsigned votes = 0;
  for (int i = 0; i < 32; ++i) votes |= static_cast<unsigned>((mask >> i & 1U) != 0 && all.bytes[i][0] != 0) << i;
  return votes;
}
inline int __all_sync(unsigned mask, bool yes) { return __ballot_sync(mask, yes) == mask ? 1 : 0; }

template <class T>
T atomicAdd(T* at, T x) {
  const T before = *at;
  *at = before + x;
  return before;
}

inline int __popc(unsigned x) { return std::popcount(x); }
inline int __clz(int x) { return std::countl_zero(static_cast<unsigned>(x)); }
inline int __ffs(int x) { return x == 0 ? 0 : std::countr_zero(static_cast<unsigned>(x)) + 1; }
inline float __int_as_float(int x) { return std::bit_cast<float>(x); }
inline float __uint_as_float(unsigned x) { return std::bit_cast<float>(x); }
inline unsigned __float_as_uint(float x) { return std::bit_cast<unsigned>(x); }
using std::isfinite;
using std::isnan;
inline float normcdff(float x) { return 0.5F * erfcf(x * -0.70710678118654752F); }
