#pragma once
// Stores of words that stay whole. nvcc cuts a plain store of 16 bytes into four where loops or selects stand before it (13.0: pool2d, the
// sums of index_select, bias_gradient's dpre, and the results of window_product.cuh): the card then writes a line in four turns. Not for
// all kernels: layer_norm's backward would take up to 12 registers more.

#include "kernels/cuda/device/element.cuh"
#include "kernels/cuda/device/instructions.cuh"

namespace twinlens::cuda {

// The W elements from p on, which start on a word.
template <int W, class T>
__device__ inline void store_words(const T (&raw)[W], T* p) {
  put_words(raw, p, [](auto* to, const auto& word) { store_word(to, word); });
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
