#pragma once
// Elements in device code: conversion to and from f32 (round to nearest even), and packs of neighbouring elements moved in words.

#include <cstdint>
#include <cuda_bf16.h>
#include <cuda_fp16.h>

#include "twinlens/kernels/dtype.h"

namespace twinlens::cuda {

__host__ __device__ inline float to_float(float x) { return x; }
__host__ __device__ inline float to_float(bf16 x) { return __bfloat162float(__nv_bfloat16(__nv_bfloat16_raw{x.bits})); }
__host__ __device__ inline float to_float(f16 x) { return __half2float(__half(__half_raw{x.bits})); }

template <class T>
__host__ __device__ inline T from_float(float x) {
  if constexpr (sizeof(T) == sizeof(float)) {
    return x;
  } else if constexpr (__is_same(T, bf16)) {
    return bf16{static_cast<__nv_bfloat16_raw>(__float2bfloat16_rn(x)).x};
  } else {
    return f16{static_cast<__half_raw>(__float2half_rn(x)).x};
  }
}

// The word in which a pack of this many bytes is moved.
template <int Bytes>
struct WordOf {
  using type = uint4;
};
template <>
struct WordOf<2> {
  using type = unsigned short;
};
template <>
struct WordOf<4> {
  using type = unsigned;
};
template <>
struct WordOf<8> {
  using type = uint2;
};

// out = the first min(n, W) elements at p as they are stored, 0 beyond.
template <int W, class T>
__device__ inline void load_raw(const T* p, std::int64_t n, bool aligned, T (&out)[W]) {
  if (aligned && n >= W) {
    using Word = typename WordOf<W* static_cast<int>(sizeof(T))>::type;
#pragma unroll
    for (int j = 0; j < static_cast<int>(sizeof out / sizeof(Word)); ++j) {
      const Word word = reinterpret_cast<const Word*>(p)[j];
      memcpy(reinterpret_cast<char*>(out) + j * sizeof(Word), &word, sizeof word);
    }
  } else {
#pragma unroll
    for (int k = 0; k < W; ++k) out[k] = k < n ? p[k] : T{};
  }
}

// The same as floats. The values, and so whatever is summed from them, do not depend on `aligned`.
template <int W, class T>
__device__ inline void load_pack(const T* p, std::int64_t n, bool aligned, float (&out)[W]) {
  T raw[W];
  load_raw(p, n, aligned, raw);
#pragma unroll
  for (int k = 0; k < W; ++k) out[k] = to_float(raw[k]);
}

// Calls put(place, word) for the words of W elements and their places from p on, which starts on a word.
template <int W, class T, class Put>
__device__ inline void put_words(const T (&raw)[W], T* p, Put put) {
  using Word = typename WordOf<W* static_cast<int>(sizeof(T))>::type;
#pragma unroll
  for (int j = 0; j < static_cast<int>(sizeof raw / sizeof(Word)); ++j) {
    Word word;
    memcpy(&word, reinterpret_cast<const char*>(raw) + j * sizeof(Word), sizeof word);
    put(reinterpret_cast<Word*>(p) + j, word);
  }
}

template <int W, class T>
__device__ inline void store_pack(const float (&in)[W], T* p, std::int64_t n, bool aligned) {
  T raw[W];
#pragma unroll
  for (int k = 0; k < W; ++k) raw[k] = from_float<T>(in[k]);
  if (aligned && n >= W) {
    put_words(raw, p, [](auto* to, const auto& word) { *to = word; });
  } else {
#pragma unroll
    for (int k = 0; k < W; ++k) {
      if (k < n) p[k] = raw[k];
    }
  }
}

// Elements of a 16-byte word.
template <class T>
inline constexpr int kPack = 16 / static_cast<int>(sizeof(T));

// Calls f(TypeTag<float|bf16|f16>{}): CUDA computes from and to all three.
template <class F>
void visit_cuda_float(DType t, F&& f) {
  switch (t) {
    case DType::bf16: return f(TypeTag<bf16>{});
    case DType::f16: return f(TypeTag<f16>{});
    default: return f(TypeTag<float>{});
  }
}

}  // namespace twinlens::cuda
