#pragma once
// Stores of whole words. nvcc cuts a plain store of 16 bytes into four where loops or selects stand before it (13.0, pool2d and the sums of
// index_select): the card then writes a line in four turns. These stay whole.

#include "kernels/cuda/device/element.cuh"
#include "kernels/cuda/device/instructions.cuh"

namespace twinlens::cuda {

// The W elements from p on, which start on a word.
template <int W, class T>
__device__ inline void store_words(const T (&raw)[W], T* p) {
  using Word = typename WordOf<W* static_cast<int>(sizeof(T))>::type;
#pragma unroll
  for (int j = 0; j < static_cast<int>(sizeof raw / sizeof(Word)); ++j) {
    Word word;
    memcpy(&word, reinterpret_cast<const char*>(raw) + j * sizeof(Word), sizeof word);
    store_word(reinterpret_cast<Word*>(p) + j, word);
  }
}

// store_pack() of a whole pack that starts on a word.
template <int W, class T>
__device__ inline void store_whole(const float (&in)[W], T* p) {
  T raw[W];
#pragma unroll
  for (int k = 0; k < W; ++k) raw[k] = from_float<T>(in[k]);
  store_words(raw, p);
}

}  // namespace twinlens::cuda
