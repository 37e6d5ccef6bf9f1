#pragma once
// Scores of a few queries, whose sums run along the lanes: queries along the lanes would fill a register for the two that 50 tokens have
// behind their third sixteen.

#include "kernels/cpu/attention/head.h"
#include "kernels/cpu/vec/transpose.h"

namespace twinlens::heads {

// From so many queries on a register of them is cheaper, at common head dims.
template <class I>
inline constexpr std::int64_t kFewQueries = I::kWidth / 3;

// Lane j: the sum of the lanes of r[j]. Each round adds the halves of two registers into one: of the rounds of transpose_square the half
// that is needed.
template <class I>
TWINLENS_INLINE Vec<I> sums_of_lanes(Vec<I> (&r)[Vec<I>::kWidth]) {
  constexpr int w = Vec<I>::kWidth;
  for (int half = w / 2; half > 0; half /= 2) {
    for (int i = 0; i < half; ++i) r[i] = Vec<I>(Zip<w>::low(r[i].raw, r[i + half].raw)) + Vec<I>(Zip<w>::high(r[i].raw, r[i + half].raw));
  }
  return r[0];
}

// tile[j][i] = factor * sum over d of left[j][d] * rows[i][d], d < width, for one register of queries i, of which the first `count` are
// there; the others' scores are 0.
template <class I>
void few_scores(const float* left, std::int64_t keys, std::int64_t width, const float* rows, std::int64_t count, float factor, float* tile,
                std::int64_t stride) {
  using V = Vec<I>;
  constexpr std::int64_t w = V::kWidth;
  const auto group = [&](std::int64_t j, std::int64_t n) __attribute__((always_inline)) {
    V scores[w];
    for (std::int64_t l = 0; l < w; ++l) scores[l] = V(0.0F);
    for (std::int64_t i = 0; i < count; ++i) {
      V sum[w];
      for (std::int64_t l = 0; l < w; ++l) sum[l] = V(0.0F);
      for (std::int64_t d = 0; d < width; d += w) {
        const V query = V::load(rows + i * width + d);
        for (std::int64_t l = 0; l < w; ++l) {
          if (l < n) sum[l] = V::fma(V::load(left + (j + l) * width + d), query, sum[l]);
        }
      }
      scores[i] = sums_of_lanes<I>(sum) * V(factor);
    }
    transpose_square<I>(scores);
    for (std::int64_t l = 0; l < n; ++l) scores[l].store(tile + (j + l) * stride);
  };
  std::int64_t j = 0;
  for (; j + w <= keys; j += w) group(j, w);
  if (j < keys) group(j, keys - j);
}

}  // namespace twinlens::heads
