#pragma once
// Attention of bf16 by products of bf16 pairs (pair_rows.h), in tile registers where the set has them. P and dS are rounded to bf16 as
// factors; scores, softmax and sums are f32.
//
// A strip of up to 32 queries meets all its keys at once, keys x queries, queries along the lanes: what P and dS must be for the next
// products is then made of neighbouring rows, and nothing of that size is ever turned. Y and dQ come out as (columns, queries).
//
// An operand lies in panels of 32 lines x 32 depths, as the micro-kernels of products read them: a left one has the pairs of a line side by
// side, a right one the lines of a pair. Lines and depths that are not there are 0.
//
// Only for files that are compiled with AVX512_BF16.

#include "kernels/cpu/attention/head.h"
#include "kernels/cpu/attention/pair_rows.h"
#include "kernels/cpu/gemm/pack.h"
#include "kernels/cpu/gemm/tile.h"
#include "kernels/cpu/vec/pack.h"
#include "kernels/cpu/vec/rough_math.h"

namespace twinlens::heads {

template <class I>
struct Tiles {
  using V = Vec<I>;
  using Raw = typename V::Raw;
  static constexpr std::int64_t kSide = AttentionTiles::kSide, kStrips = AttentionTiles::kStrips;
  static constexpr std::int64_t kWords = kSide / 2;  // pairs of a panel's depth
  static constexpr std::int64_t kPanel = kSide * kWords, kTile = kSide * kSide;
  static constexpr int kRowsAhead = 2;  // asked for with every pair of keys in the passes over scores, where there is time to wait for them
  static_assert(kPanel == AttentionTiles::kPanel && kPanel == PairRows<I>::kPanel && kWords == PairRows<I>::kWords);

  // Rows of x from `row` on, their columns [column, column + columns): lines are the rows, or the columns.
  struct Source {
    gemm::Lines lines;
    std::int64_t count, depths;
  };
  static Source rows_as_lines(const ConstRows& x, std::int64_t row, std::int64_t rows, std::int64_t column, std::int64_t columns) {
    return {{x.row<bf16>(row) + column, x.stride, 1}, rows, columns};
  }
  static Source columns_as_lines(const ConstRows& x, std::int64_t row, std::int64_t rows, std::int64_t column, std::int64_t columns) {
    return {{x.row<bf16>(row) + column, 1, x.stride}, columns, rows};
  }
  static void pack_left(const Source& x, float* out) {
    gemm::pack_row_words<I, gemm::PairWords<bf16>, kWords>(x.lines, x.count, x.depths, kSide, out);
  }
  static void pack_right(const Source& x, float* out) {
    gemm::pack_panel<I, gemm::PairWords<bf16>, V::kWidth, kWords>(x.lines, x.count, x.depths, whole_registers<I>(x.count), out);
  }

  // tile[lines][lanes] (+)= left right, over so many depths; lanes is 16 or 32. A tile has room for 32 lines.
  static void multiply(std::int64_t lines, std::int64_t depths, const float* left, const float* right, std::int64_t lanes, float* tile,
                       bool more) {
    PairRows<I>::multiply(least(kSide, lines), (depths + 1) / 2, left, right, lanes, tile, more);
  }

  // Two registers rounded to bf16, one behind the other.
  TWINLENS_INLINE static __m512i halves(V low, V high) { return (__m512i)_mm512_cvtne2ps_pbh((__m512)high.raw, (__m512)low.raw); }
  // Row `row` of a left panel, the depth along the lanes.
  TWINLENS_INLINE static void store_row(V low, V high, std::int64_t row, float* panel) {
    V((Raw)halves(low, high)).store(panel + row * kWords);
  }
  // Pair `pair` of a right panel of `lanes` lines.
  TWINLENS_INLINE static void store_pair(V even, V odd, std::int64_t pair, std::int64_t lanes, float* panel) {
    const __m512i order = _mm512_set_epi16(31, 15, 30, 14, 29, 13, 28, 12, 27, 11, 26, 10, 25, 9, 24, 8, 23, 7, 22, 6, 21, 5, 20, 4, 19, 3,
                                           18, 2, 17, 1, 16, 0);
    V((Raw)_mm512_permutexvar_epi16(order, halves(even, odd))).store(panel + pair * lanes);
  }

  // rows[query][column] of x, from (columns, queries) in a tile: column block `block` of the head.
  static void unpack_turned(const float* tile, const Block& b, const float* factor, const Rows& x, const Head& h, std::int64_t d,
                            std::int64_t block) {
    alignas(64) float turned[kTile];
    const std::int64_t columns = least(kSide, d - block * kSide);
    turn_rows<I>(tile, b.lanes, columns, b.lanes, 1.0F, turned, kSide);
    unpack_rows<I>(turned, kSide, factor, {false}, x, h.query + b.i, b.queries, h.column + block * kSide, columns);
  }

  // A strip: queries from i on, and the keys that some of them see.
  static Block strip(const AttentionProblem& p, const Head& h, std::int64_t i) {
    Block b{i, least(kSide, h.queries - i), 0, 0, h.keys, 0, 0};
    b.lanes = b.stride = whole_registers<I>(b.queries);
    if (p.causal) b.keys = most(0, least(b.keys, i + b.queries + h.offset));
    return b;
  }

  // a * b as a result of its own: contracted with what is subtracted from it, its rounding would be missing there and not in the largest
  // score, and an exponent of what is 0 could be anything where scores are large.
  TWINLENS_INLINE static V product(V a, V b) {
    typename V::Raw result = (a * b).raw;
    asm("" : "+v"(result));
    return V(result);
  }

  // scores = Q K^T with bias and mask; what they are still to be multiplied with is returned.
  static float scores_of(const AttentionProblem& p, const Head& h, const Block& b, const float* k, const float* q, float* scores) {
    const std::int64_t columns = in_sides(p.head_dim);
    for (std::int64_t j = 0; j < b.keys; j += kSide) {
      multiply(b.keys - j, p.head_dim, k + j / kSide * columns * kPanel, q, b.lanes, scores + j * b.lanes, false);
    }
    const bool scaled = h.bias != nullptr || !(p.scale > 0.0F);
    if (scaled) {
      for (std::int64_t c = 0; c < b.keys * b.lanes; c += V::kWidth) (V::load(scores + c) * V(p.scale)).store(scores + c);
    }
    mask_scores<I>(p, h, b, scores);
    return scaled ? 1.0F : p.scale;
  }

  // weights = e^(factor scores - largest), unnormalised, as right panels.
  static void exponentials(const Block& b, const float* scores, float factor, float* weights, float* largest, float* sums,
                           Prefetch& ahead) {
    for (std::int64_t g = 0; g < b.lanes; g += V::kWidth) {
      const V top = column_max<I>(scores + g, b.keys, b.lanes, V(-__builtin_inff())) * V(factor);
      const V shift = V::select(top.raw == -__builtin_inff(), V(0.0F), top);
      V sum[2] = {V(0.0F), V(0.0F)};
      for (std::int64_t j = 0; j < in_sides(b.keys) * kSide; j += 2) {
        ahead.step(kRowsAhead);
        V e[2] = {V(0.0F), V(0.0F)};
        for (int n = 0; n < 2; ++n) {
          if (j + n >= b.keys) break;
          e[n] = MathFor<I, bf16>::exp_nonpositive(product(V::load(scores + (j + n) * b.lanes + g), V(factor)) - shift);
          sum[n] += e[n];
        }
        store_pair(e[0], e[1], j % kSide / 2, b.lanes, weights + j / kSide * kWords * b.lanes + g);
      }
      top.store(largest + g);
      (sum[0] + sum[1]).store(sums + g);
    }
  }

  static void forward(const AttentionForward& a, const Head& h, std::int64_t head, std::int64_t next, float* scratch) {
    const AttentionProblem& p = a.problem;
    const gemm::TileRegisters<I, gemm::Form::pairs> registers;
    const std::int64_t d = p.head_dim, columns = in_sides(d), keys = in_sides(h.keys);
    float* k = scratch;                             // [keys][columns] left panels
    float* v = k + keys * columns * kPanel;         // [columns][keys] left panels
    float* q = v + keys * columns * kPanel;         // [columns] right panels
    float* weights = q + columns * kPanel;          // [keys] right panels
    float* scores = weights + keys * kPanel;        // (keys, lanes)
    alignas(64) float largest[kSide], sums[kSide];  // (lanes)
    alignas(64) float tile[kTile];
    Prefetch ahead;
    ahead.add(a.y, h.query, h.queries, h.column, d, true);
    ahead_of_inputs(p, next, p.longest_query, ahead);
    for (std::int64_t j = 0; j < keys; ++j) {
      const std::int64_t row = h.key + j * kSide, rows = least(kSide, h.keys - j * kSide);
      pack_left(rows_as_lines(p.k, row, rows, h.column, d), k + j * columns * kPanel);
      for (std::int64_t c = 0; c < columns; ++c)
        pack_left(columns_as_lines(p.v, row, rows, h.column + c * kSide, least(kSide, d - c * kSide)), v + (c * keys + j) * kPanel);
    }
    for (std::int64_t i = 0; i < h.queries; i += kSide) {
      const Block b = strip(p, h, i);
      pack_right(rows_as_lines(p.q, h.query + i, b.queries, h.column, d), q);
      const float factor = scores_of(p, h, b, k, q, scores);
      exponentials(b, scores, factor, weights, largest, sums, ahead);
      float* lse = a.lse + head * p.q.rows + h.query + i;
      for_lanes<I>(b.queries, [&](std::int64_t l, std::int64_t n) {
        const V sum = V::load(sums + l);
        const auto nothing = sum.raw == 0.0F;
        store_lanes<I>(V::select(nothing, V(0.0F), V::load(largest + l) + Math<I>::log(sum)), lse + l, n);
        V::select(nothing, V(0.0F), V(1.0F) / sum).store(sums + l);
      });
      for (std::int64_t c = 0; c < columns; ++c) {
        multiply(d - c * kSide, b.keys, v + c * keys * kPanel, weights, b.lanes, tile, false);
        unpack_turned(tile, b, sums, a.y, h, d, c);
      }
    }
  }

  // Scratch of the backward pass. Rows of P and dS lie in left panels [keys][strips of a block].
  struct Backward {
    float *k, *v, *k_turned;      // [keys][columns], [keys][columns], [columns][keys] left panels
    float *dk, *dv;               // [keys][columns] tiles
    float *q, *dy;                // of a strip: [columns] right panels
    float *q_turned, *dy_turned;  // of a block of strips: [columns][strips] right panels
    float *p, *ds, *ds_pairs;     // the last of a strip: [keys] right panels
    float *scores, *dp;           // of a strip: (keys, lanes)
  };
  static Backward carve(float* scratch, std::int64_t keys, std::int64_t columns) {
    const auto take = [&](std::int64_t n) {
      float* at = scratch;
      scratch += n;
      return at;
    };
    Backward s;
    for (float** p : {&s.k, &s.v, &s.k_turned}) *p = take(keys * columns * kPanel);
    for (float** p : {&s.dk, &s.dv}) *p = take(keys * columns * kTile);
    for (float** p : {&s.q, &s.dy}) *p = take(columns * kPanel);
    for (float** p : {&s.q_turned, &s.dy_turned}) *p = take(columns * kStrips * kPanel);
    for (float** p : {&s.p, &s.ds}) *p = take(keys * kStrips * kPanel);
    s.ds_pairs = take(keys * kPanel);
    for (float** p : {&s.scores, &s.dp}) *p = take(keys * kTile);
    return s;
  }

  // scores = P, not yet corrected; sums over the keys of P dP and of P.
  static void recompute(const Block& b, float factor, const float* lse, const Backward& s, float* delta, float* mass, Prefetch& ahead) {
    for (std::int64_t g = 0; g < b.lanes; g += V::kWidth) {
      const V shift = load_lanes<I>(lse + g, least(V::kWidth, b.queries - g));
      V of_delta[2] = {V(0.0F), V(0.0F)}, of_mass[2] = {V(0.0F), V(0.0F)};
      const auto one = [&](std::int64_t j, int chain) {
        float* at = s.scores + j * b.lanes + g;
        const V e = MathFor<I, bf16>::exp_nonpositive(product(V::load(at), V(factor)) - shift);
        e.store(at);
        of_delta[chain] = V::fma(e, V::load(s.dp + j * b.lanes + g), of_delta[chain]);
        of_mass[chain] += e;
      };
      std::int64_t j = 0;
      for (; j + 2 <= b.keys; j += 2) {
        ahead.step(kRowsAhead);
        one(j, 0);
        one(j + 1, 1);
      }
      if (j < b.keys) one(j, 0);
      (of_delta[0] + of_delta[1]).store(delta + g);
      (of_mass[0] + of_mass[1]).store(mass + g);
    }
  }

  // dS = scale P (dP - delta); P and dS become operands, those of strip `strip` of the block.
  template <int Vectors>
  static void score_gradient(const Block& b, std::int64_t strip, float scale, const float* delta, const float* mass, const Backward& s,
                             Prefetch& ahead) {
    constexpr std::int64_t lanes = Vectors * V::kWidth;
    V factor[2], shift[2];
    for (int g = 0; g < Vectors; ++g) {
      factor[g] = correction<I>(mass + g * V::kWidth);
      shift[g] = V::load(delta + g * V::kWidth) * factor[g];
    }
    for (std::int64_t j = 0; j < in_sides(b.keys) * kSide; j += 2) {
      const std::int64_t block = j / kSide, row = j % kSide;
      V ds[2][2];
      ahead.step(kRowsAhead);
      for (int n = 0; n < 2; ++n) {
        V weight[2] = {V(0.0F), V(0.0F)};
        ds[n][0] = ds[n][1] = V(0.0F);
        for (int g = 0; g < Vectors && j + n < b.keys; ++g) {
          const std::int64_t at = (j + n) * lanes + g * V::kWidth;
          weight[g] = V::load(s.scores + at) * factor[g];
          ds[n][g] = (V::load(s.dp + at) - shift[g]) * weight[g] * V(scale);
        }
        store_row(weight[0], weight[1], row + n, s.p + (block * kStrips + strip) * kPanel);
        store_row(ds[n][0], ds[n][1], row + n, s.ds + (block * kStrips + strip) * kPanel);
      }
      for (int g = 0; g < Vectors; ++g) store_pair(ds[0][g], ds[1][g], row / 2, lanes, s.ds_pairs + block * kWords * lanes + g * V::kWidth);
    }
  }

  // Everything about strip `index` of a block but the products that add up queries.
  static void backward_strip(const AttentionBackward& a, const Head& h, std::int64_t head, const Block& b, std::int64_t index,
                             const Backward& s, Prefetch& ahead) {
    const AttentionProblem& p = a.problem;
    const std::int64_t d = p.head_dim, columns = in_sides(d), row = h.query + b.i;
    pack_right(rows_as_lines(p.q, row, b.queries, h.column, d), s.q);
    pack_right(rows_as_lines(a.dy, row, b.queries, h.column, d), s.dy);
    for (std::int64_t c = 0; c < columns; ++c) {
      const std::int64_t left = least(kSide, d - c * kSide), at = c * kStrips * kPanel + index * kWords * whole_registers<I>(left);
      pack_right(columns_as_lines(p.q, row, b.queries, h.column + c * kSide, left), s.q_turned + at);
      pack_right(columns_as_lines(a.dy, row, b.queries, h.column + c * kSide, left), s.dy_turned + at);
    }
    const float factor = scores_of(p, h, b, s.k, s.q, s.scores);
    for (std::int64_t j = 0; j < b.keys; j += kSide)
      multiply(b.keys - j, d, s.v + j / kSide * columns * kPanel, s.dy, b.lanes, s.dp + j * b.lanes, false);
    alignas(64) float delta[kSide], mass[kSide], tile[kTile];
    recompute(b, factor, a.lse + head * p.q.rows + row, s, delta, mass, ahead);
    b.lanes == V::kWidth ? score_gradient<1>(b, index, p.scale, delta, mass, s, ahead)
                         : score_gradient<2>(b, index, p.scale, delta, mass, s, ahead);
    if (a.dq.data == nullptr) return;
    for (std::int64_t c = 0; c < columns; ++c) {
      multiply(d - c * kSide, b.keys, s.k_turned + c * in_sides(h.keys) * kPanel, s.ds_pairs, b.lanes, tile, false);
      unpack_turned(tile, b, nullptr, a.dq, h, d, c);
    }
  }

  // out (+)= left right over the strips of a block, the first of which is `first` of the head; with `causal`, strips see no key that is
  // further from the first than they are.
  static void add_strips(const AttentionProblem& p, const Head& h, std::int64_t first, std::int64_t strips, const float* left,
                         const float* right, float* out) {
    const std::int64_t columns = in_sides(p.head_dim), queries = least(strips * kSide, h.queries - first * kSide);
    for (std::int64_t j = 0; j < in_sides(h.keys); ++j) {
      const std::int64_t seen_from = p.causal ? most(0, j * kSide - h.offset) / kSide : 0, skip = most(0, seen_from - first);
      if (skip >= strips) continue;
      for (std::int64_t c = 0; c < columns; ++c) {
        const std::int64_t lanes = whole_registers<I>(least(kSide, p.head_dim - c * kSide));
        multiply(h.keys - j * kSide, queries - skip * kSide, left + (j * kStrips + skip) * kPanel,
                 right + c * kStrips * kPanel + skip * kWords * lanes, lanes, out + (j * columns + c) * kTile, seen_from < first);
      }
    }
  }
  static void unpack_tiles(const float* tiles, const Head& h, std::int64_t d, const Rows& x) {
    const std::int64_t columns = in_sides(d);
    for (std::int64_t j = 0; j < h.keys; j += kSide) {
      for (std::int64_t c = 0; c < columns; ++c) {
        const std::int64_t left = least(kSide, d - c * kSide);
        unpack_rows<I>(tiles + (j / kSide * columns + c) * kTile, whole_registers<I>(left), nullptr, {false}, x, h.key + j,
                       least(kSide, h.keys - j), h.column + c * kSide, left);
      }
    }
  }

  static void backward(const AttentionBackward& a, const Head& h, std::int64_t head, std::int64_t next, float* scratch) {
    const AttentionProblem& p = a.problem;
    const gemm::TileRegisters<I, gemm::Form::pairs> registers;
    const std::int64_t d = p.head_dim, columns = in_sides(d), keys = in_sides(h.keys);
    const Backward s = carve(scratch, keys, columns);
    Prefetch ahead;
    ahead.add(a.dq, h.query, h.queries, h.column, d, true);
    ahead.add(a.dk, h.key, h.keys, h.column, d, true);
    ahead.add(a.dv, h.key, h.keys, h.column, d, true);
    const Head following = ahead_of_inputs(p, next, p.longest_query, ahead);
    ahead.add(a.dy, following.query, following.queries, following.column, d, false);
    for (std::int64_t j = 0; j < keys; ++j) {
      const std::int64_t row = h.key + j * kSide, rows = least(kSide, h.keys - j * kSide);
      pack_left(rows_as_lines(p.k, row, rows, h.column, d), s.k + j * columns * kPanel);
      pack_left(rows_as_lines(p.v, row, rows, h.column, d), s.v + j * columns * kPanel);
      for (std::int64_t c = 0; c < columns; ++c)
        pack_left(columns_as_lines(p.k, row, rows, h.column + c * kSide, least(kSide, d - c * kSide)),
                  s.k_turned + (c * keys + j) * kPanel);
    }
    const std::int64_t strips = in_sides(h.queries);
    for (std::int64_t first = 0; first < strips; first += kStrips) {
      const std::int64_t n = least(kStrips, strips - first);
      for (std::int64_t i = 0; i < n; ++i) backward_strip(a, h, head, strip(p, h, (first + i) * kSide), i, s, ahead);
      if (a.dv.data != nullptr) add_strips(p, h, first, n, s.p, s.dy_turned, s.dv);
      if (a.dk.data != nullptr) add_strips(p, h, first, n, s.ds, s.q_turned, s.dk);
    }
    if (a.dv.data != nullptr) unpack_tiles(s.dv, h, d, a.dv);
    if (a.dk.data != nullptr) unpack_tiles(s.dk, h, d, a.dk);
  }
};

}  // namespace twinlens::heads
