#pragma once
// Products of small panels of bf16 pairs: in tile registers (gemm/amx.h) where the set has them, else by VDPBF16PS with the sums of a dozen
// rows in vector registers.
//
// Only for files that are compiled with AVX512_BF16.

#include "kernels/cpu/gemm/tile.h"

namespace twinlens::heads {

// Panels of 32 lines x 16 pairs (attention/tiles.h): of the left operand a line's pairs lie side by side, of the right one a pair's lines.
template <class I>
struct PairRows {
  using V = Vec<I>;
  using Raw = typename V::Raw;
  static constexpr std::int64_t kWords = 16, kPanel = 32 * kWords;
#if defined(TWINLENS_TILE_REGISTERS)
  static_assert(kWords == gemm::TileShape<I, gemm::Form::pairs>::kRowWords);
#endif

  // tile[rows][lanes] (+)= left right over `words` pairs of the depth; rows <= 32, lanes is 16 or 32. Other rows of the tile may be
  // written, too.
  static void multiply(std::int64_t rows, std::int64_t words, const float* left, const float* right, std::int64_t lanes, float* tile,
                       bool more) {
    lanes == V::kWidth ? multiply<1>(rows, words, left, right, tile, more) : multiply<2>(rows, words, left, right, tile, more);
  }

 private:
  template <int Vectors>
  static void multiply(std::int64_t rows, std::int64_t words, const float* left, const float* right, float* tile, bool more) {
#if defined(TWINLENS_TILE_REGISTERS)
    (void)rows;
    const gemm::TileRows rows_of_left{left, kWords * 4, kPanel * 4};
    gemm::micro_kernel<I, gemm::Form::pairs, Vectors>((words + kWords - 1) / kWords * kWords, rows_of_left, right, tile, more);
#else
    constexpr int most = 12;  // rows: with two registers each 24 sums, two of the right operand and a broadcast
    for (; rows > most; rows -= most, left += most * kWords, tile += most * Vectors * V::kWidth) {
      // The rest in two blocks that are nearly the same: 8 + 8, not 12 + 4.
      if (rows == 16) {
        block<8, Vectors>(words, left, right, tile, more);
        return block<8, Vectors>(words, left + 8 * kWords, right, tile + 8 * Vectors * V::kWidth, more);
      }
      block<most, Vectors>(words, left, right, tile, more);
    }
    if (rows > 8) return block<12, Vectors>(words, left, right, tile, more);
    if (rows > 4) return block<8, Vectors>(words, left, right, tile, more);
    if (rows > 0) return block<4, Vectors>(words, left, right, tile, more);
#endif
  }

  template <int Rows, int Vectors>
  TWINLENS_INLINE static void block(std::int64_t words, const float* left, const float* right, float* tile, bool more) {
    Raw sum[Rows][Vectors] = {};
    if (more) {
#pragma GCC unroll 16
      for (int i = 0; i < Rows; ++i) {
#pragma GCC unroll 2
        for (int j = 0; j < Vectors; ++j) sum[i][j] = V::load(tile + (i * Vectors + j) * V::kWidth).raw;
      }
    }
    for (; words > 0; words -= kWords, left += kPanel - kWords) {
      for (std::int64_t k = words < kWords ? words : kWords; k > 0; --k, ++left, right += Vectors * V::kWidth) {
        Raw of_right[Vectors];
#pragma GCC unroll 2
        for (int j = 0; j < Vectors; ++j) of_right[j] = V::load(right + j * V::kWidth).raw;
#pragma GCC unroll 16
        for (int i = 0; i < Rows; ++i) {
          const Raw of_left = gemm::broadcast<I>(left + i * kWords);
#pragma GCC unroll 2
          for (int j = 0; j < Vectors; ++j) sum[i][j] = gemm::multiply_add<I, gemm::Form::pairs>(of_left, of_right[j], sum[i][j]);
        }
      }
    }
#pragma GCC unroll 16
    for (int i = 0; i < Rows; ++i) {
#pragma GCC unroll 2
      for (int j = 0; j < Vectors; ++j) V(sum[i][j]).store(tile + (i * Vectors + j) * V::kWidth);
    }
  }
};

}  // namespace twinlens::heads
