#pragma once
// Scores of a few queries, whose sums run along the lanes: queries along the lanes would fill a register for the two that 50 tokens have
// behind their third sixteen.

#include "kernels/cpu/attention/head.h"
#include "kernels/cpu/vec/transpose.h"

namespace twinlens::heads {

// From so many queries on a register of them is cheaper, at common head dims.
template <class I>
inline constexpr int kFewQueries = I::kWidth / 3;

// Registers of the halves of a and b, added: of the rounds of transpose_square the half that sums over lanes need.
template <class I>
TWINLENS_INLINE Vec<I> add_halves(Vec<I> a, Vec<I> b) {
  return Vec<I>(Zip<I::kWidth>::low(a.raw, b.raw)) + Vec<I>(Zip<I::kWidth>::high(a.raw, b.raw));
}

// tile[j][i] = factor * sum over d of left[j][d] * rows[i][d], d < width, for one register of queries i, of which the first `Count` are
// there; the others' scores are 0. Four keys meet all the queries at once, so that what is loaded serves several multiply-adds.
template <class I, int Count>
void few_scores(const float* left, std::int64_t left_stride, std::int64_t keys, std::int64_t width, const float* rows,
                std::int64_t query_stride, float factor, float* tile, std::int64_t stride) {
  using V = Vec<I>;
  constexpr int w = V::kWidth, groups = w / 4;
  for (std::int64_t j = 0; j < keys; j += w) {
    V sums[Count][groups];  // of a query with the four keys of a group, each over a quarter of the lanes
#pragma GCC unroll 4
    for (int g = 0; g < groups; ++g) {
      // The keys that add_halves brings together first.
      const float* key[4];
      V sum[4][Count];
      for (int k = 0; k < 4; ++k) {
        key[k] = left + least(j + g + k * groups, keys - 1) * left_stride;
        for (int i = 0; i < Count; ++i) sum[k][i] = V(0.0F);
      }
      for (std::int64_t d = 0; d < width; d += w) {
        V query[Count];
        for (int i = 0; i < Count; ++i) query[i] = V::load(rows + i * query_stride + d);
        for (int k = 0; k < 4; ++k) {
          const V of_key = V::load(key[k] + d);
          for (int i = 0; i < Count; ++i) sum[k][i] = V::fma(of_key, query[i], sum[k][i]);
        }
      }
      for (int i = 0; i < Count; ++i) sums[i][g] = add_halves<I>(add_halves<I>(sum[0][i], sum[2][i]), add_halves<I>(sum[1][i], sum[3][i]));
    }
    V scores[w];
    for (int i = 0; i < w; ++i) {
      scores[i] = V(0.0F);
      if (i >= Count) continue;
      for (int half = groups / 2; half > 0; half /= 2) {
        for (int g = 0; g < half; ++g) sums[i][g] = add_halves<I>(sums[i][g], sums[i][g + half]);
      }
      scores[i] = sums[i][0] * V(factor);
    }
    transpose_square<I>(scores);
    for (int l = 0; l < w && j + l < keys; ++l) scores[l].store(tile + (j + l) * stride);
  }
}

// The same for any count up to kFewQueries.
template <class I, int Most = kFewQueries<I>>
TWINLENS_INLINE void few_scores(const float* left, std::int64_t left_stride, std::int64_t keys, std::int64_t width, const float* rows,
                                std::int64_t query_stride, std::int64_t count, float factor, float* tile, std::int64_t stride) {
  if constexpr (Most > 1) {
    if (count < Most) return few_scores<I, Most - 1>(left, left_stride, keys, width, rows, query_stride, count, factor, tile, stride);
  }
  few_scores<I, Most>(left, left_stride, keys, width, rows, query_stride, factor, tile, stride);
}

}  // namespace twinlens::heads
