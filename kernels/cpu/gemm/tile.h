#pragma once
// The micro-kernel: a tile of c held in registers while one panel of a and one of b stream past.

#include "kernels/cpu/vec/vec.h"
#if defined(__AVX512BF16__)
#include <immintrin.h>
#endif

namespace twinlens::gemm {

// Rows and registers per row of a tile. The accumulators, a row of b and one broadcast of a fill the register file, and there are
// enough independent chains to hide the latency of the multiply-add.
template <class I>
struct TileShape;
template <>
struct TileShape<Scalar> {
  static constexpr int kRows = 4, kVectors = 2;  // 16 registers, and a product needs one when there is no fused multiply-add
};
template <>
struct TileShape<Avx2> {
  static constexpr int kRows = 4, kVectors = 3;  // 16 registers
};
template <>
struct TileShape<Avx512> {
  static constexpr int kRows = 8, kVectors = 3;  // 32 registers
};
template <>
struct TileShape<Avx512Bf16> : TileShape<Avx512> {};
template <>
struct TileShape<Neon> {
  static constexpr int kRows = 8, kVectors = 3;  // 32 registers
};

// A word in every lane. By way of integers: a pair of bf16 may look like a signalling NaN, and 0 + x is free there.
template <class I>
TWINLENS_INLINE typename Vec<I>::Raw broadcast(const float* word) {
  std::int32_t bits;
  std::memcpy(&bits, word, sizeof(bits));
  return (typename Vec<I>::Raw)(typename Vec<I>::Int{} + bits);
}

template <class I, bool Pairs>
TWINLENS_INLINE typename Vec<I>::Raw multiply_add(typename Vec<I>::Raw a, typename Vec<I>::Raw b, typename Vec<I>::Raw c) {
#if defined(__AVX512BF16__)
  if constexpr (Pairs) return (typename Vec<I>::Raw)_mm512_dpbf16_ps((__m512)c, (__m512bh)a, (__m512bh)b);
#endif
  return a * b + c;
}

// tile[kRows][Vectors * width] = sum over words of a[word][row] * b[word][column].
template <class I, bool Pairs, int Vectors>
void micro_kernel(std::int64_t words, const float* a, const float* b, float* tile) {
  constexpr int rows = TileShape<I>::kRows, width = I::kWidth;
  using Raw = typename Vec<I>::Raw;
  Raw sum[rows][Vectors] = {};
  for (std::int64_t k = 0; k < words; ++k) {
    Raw bv[Vectors];
#pragma GCC unroll 4
    for (int j = 0; j < Vectors; ++j) bv[j] = Vec<I>::load(b + j * width).raw;
#pragma GCC unroll 16
    for (int i = 0; i < rows; ++i) {
      const Raw av = broadcast<I>(a + i);
#pragma GCC unroll 4
      for (int j = 0; j < Vectors; ++j) sum[i][j] = multiply_add<I, Pairs>(av, bv[j], sum[i][j]);
    }
    a += rows;
    b += Vectors * width;
  }
#pragma GCC unroll 16
  for (int i = 0; i < rows; ++i) {
#pragma GCC unroll 4
    for (int j = 0; j < Vectors; ++j) Vec<I>(sum[i][j]).store(tile + (i * Vectors + j) * width);
  }
}

}  // namespace twinlens::gemm
