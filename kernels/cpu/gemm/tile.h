#pragma once
// The micro-kernel: a tile of c held in registers while one panel of a and one of b stream past.

#include "kernels/cpu/gemm/words.h"
#include "kernels/cpu/vec/prefetch.h"
#if defined(__AVX512BF16__)
#include <immintrin.h>
#endif

namespace twinlens::gemm {

// Where a tile's rows of a lie: packed in pieces (pack.h), or one behind the other, as in a matrix. A step goes over TileShape::kRowWords
// words.
struct TileRows {
  const void* data;
  std::int64_t row_bytes, step_bytes;
};

}  // namespace twinlens::gemm

#if defined(__AMX_BF16__) || defined(__AMXBF16__)  // clang 14's spelling
#define TWINLENS_TILE_REGISTERS
#include "kernels/cpu/gemm/amx.h"
#endif

namespace twinlens::gemm {

// Rows and registers per row of a tile. The accumulators, a row of b and one broadcast of a fill the register file, and there are
// enough independent chains to hide the latency of the multiply-add.
//
// kRowWords: a panel of a is stored in pieces of so many words of the depth, kRowDepths depths, in each the words of a row side by side;
// with 1 the rows of a word are. Rows in memory whose words are such pieces already are read in place. The depth is padded with zeros to a
// multiple of it.
//
// kStepWords: so many words of a panel of b, and of the rows of a tile, fit into the first-level cache; a multiple of kRowWords.
template <Form F>
struct WordByWord {
  static constexpr int kRowWords = 1, kRowDepths = F == Form::pairs ? 2 : 1, kStepWords = 192;
};
template <class I, Form F>
struct TileShape;
template <Form F>
struct TileShape<Scalar, F> : WordByWord<F> {
  static constexpr int kRows = 4, kVectors = 2;  // 16 registers, and a product needs one when there is no fused multiply-add
};
template <Form F>
struct TileShape<Avx2, F> : WordByWord<F> {
  static constexpr int kRows = 4, kVectors = 3;  // 16 registers
  // The whole depth: a narrow panel of b is as fast from L2, and what a step begins and ends with is done once.
  static constexpr int kStepWords = 1 << 20;
};
template <Form F>
struct TileShape<Avx512, F> : WordByWord<F> {
  static constexpr int kRows = 8, kVectors = 3;  // 32 registers
};
template <Form F>
struct TileShape<Avx512Bf16, F> : TileShape<Avx512, F> {};
template <>
struct TileShape<Avx512Amx, Form::floats> : TileShape<Avx512, Form::floats> {};
template <>
struct TileShape<Avx512Amx, Form::pairs> {
  static constexpr int kRowWords = 16, kRowDepths = 32, kStepWords = 128;
  static constexpr int kRows = 32, kVectors = 2;  // 8 tile registers of 16 x 16 words: four sums, two of a, two of b
};
template <>
struct TileShape<Avx512Amx, Form::thirds> {
  static constexpr int kRowWords = 48, kRowDepths = 32;
  static constexpr int kStepWords = 1 << 20;  // (the whole depth: a step is computed longer than it is fetched)
  static constexpr int kRows = 32, kVectors = 2;
};
template <Form F>
struct TileShape<Neon, F> : WordByWord<F> {
  static constexpr int kRows = 8, kVectors = 3;  // 32 registers
};

// A word in every lane. By way of integers: a pair of bf16 may look like a signalling NaN, and 0 + x is free there.
template <class I>
TWINLENS_INLINE typename Vec<I>::Raw broadcast(const void* word) {
  std::int32_t bits;
  std::memcpy(&bits, word, sizeof(bits));
  return (typename Vec<I>::Raw)(typename Vec<I>::Int{} + bits);
}

template <class I, Form F>
TWINLENS_INLINE typename Vec<I>::Raw multiply_add(typename Vec<I>::Raw a, typename Vec<I>::Raw b, typename Vec<I>::Raw c) {
#if defined(__AVX512BF16__)
  if constexpr (F == Form::pairs) return (typename Vec<I>::Raw)_mm512_dpbf16_ps((__m512)c, (__m512bh)a, (__m512bh)b);
#else
  static_assert(F == Form::floats, "pairs of bf16 need an instruction that multiplies them");
#endif
  return a * b + c;
}

// While one is alive the thread's tile registers are set up for micro_kernel(); nothing to do for other sets.
template <class I, Form F>
struct TileRegisters {
  TWINLENS_INLINE TileRegisters() {
#if defined(TWINLENS_TILE_REGISTERS)
    if constexpr (F != Form::floats) configure_tiles();
#endif
  }
  TWINLENS_INLINE ~TileRegisters() {
#if defined(TWINLENS_TILE_REGISTERS)
    if constexpr (F != Form::floats) _tile_release();
#endif
  }
  TileRegisters(const TileRegisters&) = delete;
  TileRegisters& operator=(const TileRegisters&) = delete;
};

// tile[kRows][Vectors * width] = sum over words of a[word][row] * b[word][column]; with `more`, the sum goes on from what the tile holds,
// with the bits of one call for all words. `ahead` is asked for meanwhile (pairs in tile registers only).
template <class I, Form F, int Vectors>
void micro_kernel(std::int64_t words, const TileRows& rows_of_a, const float* b, float* tile, bool more,
                  [[maybe_unused]] Prefetch* ahead = nullptr) {
#if defined(TWINLENS_TILE_REGISTERS)
  if constexpr (F == Form::pairs) return multiply_tiles<Vectors>(words, rows_of_a, b, tile, more, ahead);
  if constexpr (F == Form::thirds) return multiply_thirds<Vectors>(words, static_cast<const float*>(rows_of_a.data), b, tile, more);
#else
  static_assert(TileShape<I, F>::kRowWords == 1, "this layout is for tile registers, which this compiler was not asked for");
#endif
  constexpr int rows = TileShape<I, F>::kRows, width = I::kWidth;
  using Raw = typename Vec<I>::Raw;
  const char* a = static_cast<const char*>(rows_of_a.data);
  const std::int64_t row_bytes = rows_of_a.row_bytes, step_bytes = rows_of_a.step_bytes;
  Raw sum[rows][Vectors] = {};
  if (more) {
#pragma GCC unroll 16
    for (int i = 0; i < rows; ++i) {
#pragma GCC unroll 4
      for (int j = 0; j < Vectors; ++j) sum[i][j] = Vec<I>::load(tile + (i * Vectors + j) * width).raw;
    }
  }
  for (std::int64_t k = 0; k < words; ++k) {
    Raw bv[Vectors];
#pragma GCC unroll 4
    for (int j = 0; j < Vectors; ++j) bv[j] = Vec<I>::load(b + j * width).raw;
#pragma GCC unroll 16
    for (int i = 0; i < rows; ++i) {
      const Raw av = broadcast<I>(a + i * row_bytes);
#pragma GCC unroll 4
      for (int j = 0; j < Vectors; ++j) sum[i][j] = multiply_add<I, F>(av, bv[j], sum[i][j]);
    }
    a += step_bytes;
    b += Vectors * width;
  }
#pragma GCC unroll 16
  for (int i = 0; i < rows; ++i) {
#pragma GCC unroll 4
    for (int j = 0; j < Vectors; ++j) Vec<I>(sum[i][j]).store(tile + (i * Vectors + j) * width);
  }
}

}  // namespace twinlens::gemm
