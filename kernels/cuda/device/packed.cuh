#pragma once
// Packs that stay in registers as they are stored: two elements of 16 bits in one register. (An array of such elements would get a
// register for each.)

#include "kernels/cuda/device/element.cuh"

namespace twinlens::cuda {

template <int W, class T>
struct Packed {
  static constexpr int kWords = W * static_cast<int>(sizeof(T)) / 4;
  unsigned words[kWords];
};

// The first min(n, W) elements at p, 0 beyond.
template <int W, class T>
__device__ inline void load_packed(const T* p, std::int64_t n, bool aligned, Packed<W, T>& out) {
  if (aligned && n >= W) {
    using Word = typename WordOf<W* static_cast<int>(sizeof(T))>::type;
#pragma unroll
    for (int j = 0; j < static_cast<int>(sizeof out / sizeof(Word)); ++j) {
      const Word word = reinterpret_cast<const Word*>(p)[j];
      memcpy(out.words + j * (sizeof(Word) / 4), &word, sizeof word);
    }
  } else {
    T raw[W];
#pragma unroll
    for (int k = 0; k < W; ++k) raw[k] = k < n ? p[k] : T{};
    memcpy(out.words, raw, sizeof raw);
  }
}

template <int W, class T>
__device__ inline void unpack(const Packed<W, T>& x, float (&out)[W]) {
  T raw[W];
  memcpy(raw, x.words, sizeof raw);
#pragma unroll
  for (int k = 0; k < W; ++k) out[k] = to_float(raw[k]);
}

// Makes the compiler forget what it has computed from a pack, so that it is computed again instead of being kept in registers.
template <int W, class T>
__device__ inline void forget(Packed<W, T>& x) {
#pragma unroll
  for (unsigned& word : x.words) asm volatile("" : "+r"(word));
}

}  // namespace twinlens::cuda
