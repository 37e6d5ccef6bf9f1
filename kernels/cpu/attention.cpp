// One (sequence, head) at a time, everything f32 in scratch that stays in cache. Score tiles are transposed, keys x queries: queries lie
// along the lanes, so softmax needs no work across lanes, K and V are read as packed, or as they lie, and only Q and dY are turned. Heads
// of bf16 that suit products of bf16 pairs go there instead (attention/tiles.h).
#include "twinlens/kernels/attention.h"

#include "kernels/cpu/attention/few_queries.h"
#include "kernels/cpu/attention/head.h"
#if defined(__AVX512BF16__)
#include "kernels/cpu/attention/tiles.h"
#endif
#include "kernels/cpu/vec/math.h"
#include "kernels/cpu/vec/pack.h"
#include "kernels/cpu/vec/small_product.h"

#include "twinlens/kernels/parallel.h"

namespace twinlens {
namespace {

using namespace heads;

constexpr std::int64_t kQueries = AttentionBlocks::kQueries;
constexpr std::int64_t kTileStride = row_stride(kQueries);
constexpr std::int64_t kCausalQueries = 32;  // smaller blocks skip more of the upper half

TWINLENS_INLINE void clear(float* p, std::int64_t n) { std::memset(p, 0, static_cast<std::size_t>(n) * sizeof(float)); }

// Queries [i, i + queries) against keys [j, j + keys) less those behind every query of the block.
template <class I>
TWINLENS_INLINE Block block_of(const AttentionProblem& p, const Head& h, std::int64_t i, std::int64_t j, std::int64_t keys) {
  Block b;
  b.i = i;
  b.queries = least(p.causal ? kCausalQueries : kQueries, h.queries - i);
  b.lanes = whole_registers<I>(b.queries);
  b.stride = row_stride(b.lanes);
  const std::int64_t rest = b.queries % I::kWidth;
  b.few = p.few_queries_along_lanes && rest <= kFewQueries<I> ? rest : 0;
  b.j = j;
  b.keys = least(keys, h.keys - j);
  if (p.causal) b.keys = most(0, least(b.keys, i + b.queries + h.offset - j));
  return b;
}

// Rows of a head in scratch: head_dim padded to whole registers, and the floats from row to row.
struct Layout {
  std::int64_t width, stride;
};

template <class I>
TWINLENS_INLINE Layout layout_of(const AttentionProblem& p) {
  return {whole_registers<I>(p.head_dim), row_stride(p.head_dim)};
}

// Rows of f32.
struct RowsAt {
  const float* data;
  std::int64_t stride;
};

// Rows of x as left operands of score_product, which reads them in order, row by row: where they lie, or packed.
template <class I>
TWINLENS_INLINE RowsAt left_rows(const ConstRows& x, std::int64_t begin, std::int64_t rows, std::int64_t column, std::int64_t d,
                                 float* packed, const Layout& layout) {
  if (x.dtype == DType::f32 && d == layout.width) return {x.row<float>(begin) + column, x.stride};
  pack_rows<I>(x, begin, rows, column, d, packed, layout.stride);
  return {packed, layout.stride};
}

// tile[j][i] = factor * sum over d of left[j][d] * rows[i][d], by `turned`, which is factor * rows with the queries along the lanes.
template <class I>
TWINLENS_INLINE void score_product(const Block& b, const RowsAt& left, const Layout& layout, std::int64_t d, const float* rows,
                                   float factor, const float* turned, float* tile, Prefetch* ahead) {
  const std::int64_t whole = b.few > 0 ? b.queries - b.few : b.lanes;
  if (whole > 0) SmallProduct<I>::run({b.keys, whole, d, left.data, left.stride, 1, turned, b.stride, tile, b.stride, false, ahead});
  if (whole < b.lanes)
    few_scores<I>(left.data, left.stride, b.keys, layout.width, rows + whole * layout.stride, layout.stride, b.few, factor, tile + whole,
                  b.stride);
}

// out[i][d] (+)= sum over j of tile[j][i] * right[j][d]: rows are queries.
template <class I>
TWINLENS_INLINE void query_product(const AttentionProblem& p, const Head& h, const Block& b, const float* tile, const float* right,
                                   const Layout& layout, float* out, bool accumulate, Prefetch* ahead) {
  const std::int64_t step = p.causal ? SmallProduct<I>::kRows : b.queries;
  for (std::int64_t i = 0; i < b.queries; i += step) {
    const std::int64_t rows = least(step, b.queries - i);
    const std::int64_t seen = p.causal ? most(0, least(b.keys, b.i + i + rows + h.offset - b.j)) : b.keys;
    SmallProduct<I>::run(
        {rows, layout.width, seen, tile + i, 1, b.stride, right, layout.stride, out + i * layout.stride, layout.stride, accumulate, ahead});
  }
}

// out[j][d] (+)= sum over i of tile[j][i] * right[i][d]: rows are keys.
template <class I>
TWINLENS_INLINE void key_product(const AttentionProblem& p, const Head& h, const Block& b, const float* tile, const float* right,
                                 const Layout& layout, float* out, bool accumulate, Prefetch* ahead) {
  const std::int64_t step = p.causal ? SmallProduct<I>::kRows : b.keys;
  for (std::int64_t j = 0; j < b.keys; j += step) {
    const std::int64_t rows = least(step, b.keys - j);
    const std::int64_t first = p.causal ? least(b.queries, most(0, b.j + j - h.offset - b.i)) : 0;
    SmallProduct<I>::run({rows, layout.width, b.queries - first, tile + j * b.stride + first, b.stride, 1, right + first * layout.stride,
                          layout.stride, out + j * layout.stride, layout.stride, accumulate, ahead});
  }
}

// Online softmax of one block of keys: tile becomes exp(S - shift), where shift is the largest score so far; sums and what has been
// gathered in `out` follow.
template <class I>
void softmax_block(const Block& b, float* tile, float* largest, float* sums, float* out, const Layout& layout) {
  using V = Vec<I>;
  for (std::int64_t i = 0; i < b.lanes; i += V::kWidth) {
    const V before = V::load(largest + i);
    const V top = column_max<I>(tile + i, b.keys, b.stride, before);
    const V shift = V::select(top.raw == -__builtin_inff(), V(0.0F), top);
    V sum(0.0F);
    for (std::int64_t j = 0; j < b.keys; ++j) {
      const V e = Math<I>::exp_nonpositive(V::load(tile + j * b.stride + i) - shift);
      e.store(tile + j * b.stride + i);
      sum += e;
    }
    top.store(largest + i);
    if (b.j == 0) {
      sum.store(sums + i);
      continue;
    }
    const V factor = Math<I>::exp_nonpositive(before - shift);
    V::fma(V::load(sums + i), factor, sum).store(sums + i);
    for (std::int64_t l = 0; l < V::kWidth && i + l < b.queries; ++l) {
      float* row = out + (i + l) * layout.stride;
      for (std::int64_t c = 0; c < layout.width; c += V::kWidth) (V::load(row + c) * V(factor.raw[l])).store(row + c);
    }
  }
}

// Ticks of prefetching in so many products of queries, keys and columns.
template <class I>
TWINLENS_INLINE std::int64_t ticks_of(const AttentionProblem& p, const Head& h, std::int64_t products) {
  return SmallProduct<I>::ticks_of(products * h.queries * h.keys * p.head_dim) / (p.causal ? 2 : 1);
}

// The queries of this head behind the first block. (All of a head ahead of it would be too much for the second-level cache, a part of which
// only serves rows that lie whole widths apart.)
TWINLENS_INLINE void ahead_of_queries(const ConstRows& x, const Head& h, std::int64_t d, Prefetch& ahead) {
  ahead.add(x, h.query + kQueries, h.queries - kQueries, h.column, d, false);
}

template <class I>
void forward_head(const AttentionForward& a, std::int64_t sequence, std::int64_t head, std::int64_t next, float* scratch) {
  using V = Vec<I>;
  const AttentionProblem& p = a.problem;
  const Head h = head_of(p, sequence, head);
  const AttentionBlocks blocks = blocks_of(p);
  const std::int64_t d = p.head_dim;
  const Layout layout = layout_of<I>(p);
  float* k = scratch;                               // (keys of a block, width)
  float* v = k + blocks.keys * blocks.stride;       // (keys of a block, width)
  float* tile = v + blocks.keys * blocks.stride;    // (keys of a block, lanes)
  float* rows = tile + blocks.keys * kTileStride;   // (queries, width)
  float* q = rows + kQueries * blocks.stride;       // (width, lanes)
  float* out = q + kTileStride * blocks.stride;     // (queries, width)
  float* largest = out + kQueries * blocks.stride;  // (lanes)
  float* sums = largest + kQueries;                 // (lanes)
  std::int64_t packed = -1;
  RowsAt key_rows{};
  Prefetch ahead;
  ahead_of_queries(p.q, h, d, ahead);
  const RowOutput y_out = outputs_of(d, a.y);
  ahead_of_output(y_out, a.y, h.query, h.queries, h.column, d, ahead);
  ahead_of_inputs(p, next, kQueries, ahead);
  ahead.spread(ticks_of<I>(p, h, 2));
  for (std::int64_t i = 0; i < h.queries;) {
    Block b = block_of<I>(p, h, i, 0, blocks.keys);
    pack_rows<I>(p.q, h.query + i, b.queries, h.column, d, rows, layout.stride);
    turn_rows<I>(rows, layout.stride, b.queries, layout.width, p.scale, q, b.stride);
    if (b.keys == 0) clear(out, b.queries * layout.stride);
    for (std::int64_t l = 0; l < b.lanes; ++l) largest[l] = -__builtin_inff();
    clear(sums, b.lanes);
    for (std::int64_t j = 0; j < h.keys; j += blocks.keys) {
      b = block_of<I>(p, h, i, j, blocks.keys);
      if (b.keys == 0) break;
      if (packed != j) {
        key_rows = left_rows<I>(p.k, h.key + j, least(blocks.keys, h.keys - j), h.column, d, k, layout);
        pack_rows<I>(p.v, h.key + j, least(blocks.keys, h.keys - j), h.column, d, v, layout.stride);
        packed = j;
      }
      score_product<I>(b, key_rows, layout, d, rows, p.scale, q, tile, &ahead);
      mask_scores<I>(p, h, b, tile);
      softmax_block<I>(b, tile, largest, sums, out, layout);
      query_product<I>(p, h, b, tile, v, layout, out, j > 0, &ahead);
    }
    float* lse = a.lse + head * p.q.rows + h.query + i;
    for_lanes<I>(b.queries, [&](std::int64_t l, std::int64_t n) {
      const V sum = V::load(sums + l);
      const auto nothing = sum.raw == 0.0F;
      store_lanes<I>(V::select(nothing, V(0.0F), V::load(largest + l) + Math<I>::log(sum)), lse + l, n);
      V::select(nothing, V(0.0F), V(1.0F) / sum).store(sums + l);
    });
    unpack_rows<I>(out, layout.stride, sums, y_out, a.y, h.query + i, b.queries, h.column, d);
    i += b.queries;
  }
}

// Scratch of the backward pass.
struct BackwardScratch {
  float *k, *v, *dk, *dv;                // (keys of a block, width)
  float *p, *ds;                         // tiles
  float *q, *dy, *q_turned, *dy_turned;  // (queries, width), (width, lanes)
  float *delta, *mass;                   // (lanes): sums over keys of P dP and of P
  float *all_delta, *all_mass, *dq;      // the same of the whole sequence (queries), then (queries, width)
};

TWINLENS_INLINE BackwardScratch carve(const AttentionBackward& a, float* scratch) {
  const AttentionBlocks blocks = blocks_of(a.problem);
  const auto take = [&](std::int64_t n) {
    float* at = scratch;
    scratch += n;
    return at;
  };
  const std::int64_t keys = blocks.keys * blocks.stride, tile = blocks.keys * kTileStride;
  BackwardScratch s;
  for (float** p : {&s.k, &s.v, &s.dk, &s.dv}) *p = take(keys);
  for (float** p : {&s.p, &s.ds}) *p = take(tile);
  for (float** p : {&s.q, &s.dy}) *p = take(kQueries * blocks.stride);
  for (float** p : {&s.q_turned, &s.dy_turned}) *p = take(kTileStride * blocks.stride);
  for (float** p : {&s.delta, &s.mass}) *p = take(kQueries);
  for (float** p : {&s.all_delta, &s.all_mass}) *p = take((a.problem.longest_query + kQueries - 1) / kQueries * kQueries);
  s.dq = scratch;
  return s;
}

// Packs a block's queries and upstream gradients, then makes P in s.p, dP in s.ds and the sums over the block's keys.
template <class I>
void recompute(const AttentionBackward& a, const Head& h, const Block& b, std::int64_t head, const Layout& layout, const BackwardScratch& s,
               const RowsAt& value_rows, Prefetch* ahead) {
  using V = Vec<I>;
  const AttentionProblem& p = a.problem;
  const std::int64_t d = p.head_dim;
  pack_rows<I>(p.q, h.query + b.i, b.queries, h.column, d, s.q, layout.stride);
  turn_rows<I>(s.q, layout.stride, b.queries, layout.width, p.scale, s.q_turned, b.stride);
  pack_rows<I>(a.dy, h.query + b.i, b.queries, h.column, d, s.dy, layout.stride);
  turn_rows<I>(s.dy, layout.stride, b.queries, layout.width, 1.0F, s.dy_turned, b.stride);
  score_product<I>(b, {s.k, layout.stride}, layout, d, s.q, p.scale, s.q_turned, s.p, ahead);
  mask_scores<I>(p, h, b, s.p);
  score_product<I>(b, value_rows, layout, d, s.dy, 1.0F, s.dy_turned, s.ds, ahead);
  const float* lse = a.lse + head * p.q.rows + h.query + b.i;
  for (std::int64_t i = 0; i < b.lanes; i += V::kWidth) {
    const V shift = load_lanes<I>(lse + i, least(V::kWidth, b.queries - i));
    V delta(0.0F), mass(0.0F);
    for (std::int64_t j = 0; j < b.keys; ++j) {
      float* at = s.p + j * b.stride + i;
      // Rounding can put a score above the log-sum-exp by an ulp or so; the lanes behind the last query can be anything.
      const V e = Math<I>::exp_nonpositive(V::load(at) - shift);
      e.store(at);
      delta = V::fma(e, V::load(s.ds + j * b.stride + i), delta);
      mass += e;
    }
    delta.store(s.delta + i);
    mass.store(s.mass + i);
  }
}

// dS = scale P (dP - delta), in place of dP; and the rows of dY take P's correction, for dV = P^T dY. The sums are those over all keys.
template <class I>
void score_gradient(const Block& b, const BackwardScratch& s, const float* delta, const float* mass, const Layout& layout, float scale) {
  using V = Vec<I>;
  float factors[kQueries];
  for (std::int64_t i = 0; i < b.lanes; i += V::kWidth) {
    const V factor = correction<I>(mass + i), shift = V::load(delta + i) * factor, scaled = factor * V(scale);
    factor.store(factors + i);
    for (std::int64_t j = 0; j < b.keys; ++j) {
      float* at = s.ds + j * b.stride + i;
      ((V::load(at) - shift) * V::load(s.p + j * b.stride + i) * scaled).store(at);
    }
  }
  for (std::int64_t i = 0; i < b.queries; ++i) {
    float* row = s.dy + i * layout.stride;
    for (std::int64_t c = 0; c < layout.width; c += V::kWidth) (V::load(row + c) * V(factors[i])).store(row + c);
  }
}

// Packs a block's keys; returns its rows of V.
template <class I>
RowsAt pack_keys(const AttentionProblem& p, const Head& h, std::int64_t j, std::int64_t keys, const Layout& layout,
                 const BackwardScratch& s) {
  pack_rows<I>(p.k, h.key + j, keys, h.column, p.head_dim, s.k, layout.stride);
  return left_rows<I>(p.v, h.key + j, keys, h.column, p.head_dim, s.v, layout);
}

// Sums over all keys: with several blocks of keys they need a sweep of their own.
template <class I>
void sweep_sums(const AttentionBackward& a, const Head& h, std::int64_t head, const Layout& layout, const BackwardScratch& s,
                Prefetch* ahead) {
  using V = Vec<I>;
  const std::int64_t most_keys = blocks_of(a.problem).keys;
  for (float* all : {s.all_delta, s.all_mass}) clear(all, (h.queries + kQueries - 1) / kQueries * kQueries);
  for (std::int64_t j = 0; j < h.keys; j += most_keys) {
    const RowsAt value_rows = pack_keys<I>(a.problem, h, j, least(most_keys, h.keys - j), layout, s);
    for (std::int64_t i = 0; i < h.queries;) {
      const Block b = block_of<I>(a.problem, h, i, j, most_keys);
      recompute<I>(a, h, b, head, layout, s, value_rows, ahead);
      for (std::int64_t l = 0; l < b.lanes; l += V::kWidth) {
        (V::load(s.all_delta + i + l) + V::load(s.delta + l)).store(s.all_delta + i + l);
        (V::load(s.all_mass + i + l) + V::load(s.mass + l)).store(s.all_mass + i + l);
      }
      i += b.queries;
    }
  }
}

// The gradients of one head. Products accumulate into cleared scratch, but a first product into all of it overwrites; with one block of
// keys a block's dQ is complete at once.
template <class I>
void backward_head(const AttentionBackward& a, std::int64_t sequence, std::int64_t head, std::int64_t next, float* scratch) {
  const AttentionProblem& p = a.problem;
  const Head h = head_of(p, sequence, head);
  const std::int64_t d = p.head_dim, most_keys = blocks_of(p).keys;
  const Layout layout = layout_of<I>(p);
  const BackwardScratch s = carve(a, scratch);
  const bool one_block = 0 < h.keys && h.keys <= most_keys;
  Prefetch ahead;
  ahead_of_queries(p.q, h, d, ahead);
  ahead_of_queries(a.dy, h, d, ahead);
  const RowOutput gradients = outputs_of(d, a.dq, a.dk, a.dv);
  ahead_of_output(gradients, a.dq, h.query, h.queries, h.column, d, ahead);
  ahead_of_output(gradients, a.dk, h.key, h.keys, h.column, d, ahead);
  ahead_of_output(gradients, a.dv, h.key, h.keys, h.column, d, ahead);
  const Head following = ahead_of_inputs(p, next, kQueries, ahead);
  ahead.add(a.dy, following.query, least(kQueries, following.queries), following.column, d, false);
  ahead.spread(ticks_of<I>(p, h, 5));
  if (!one_block) clear(s.dq, h.queries * layout.stride);
  if (!one_block) sweep_sums<I>(a, h, head, layout, s, &ahead);
  for (std::int64_t j = 0; j < h.keys; j += most_keys) {
    const std::int64_t keys = least(most_keys, h.keys - j);
    const RowsAt value_rows = pack_keys<I>(p, h, j, keys, layout, s);
    const bool fresh = !p.causal && h.queries > 0;  // the first block of queries reaches every key
    if (!fresh) clear(s.dk, keys * layout.stride);
    if (!fresh) clear(s.dv, keys * layout.stride);
    for (std::int64_t i = 0; i < h.queries;) {
      const Block b = block_of<I>(p, h, i, j, most_keys);
      const bool add = !fresh || i > 0;
      recompute<I>(a, h, b, head, layout, s, value_rows, &ahead);
      score_gradient<I>(b, s, one_block ? s.delta : s.all_delta + i, one_block ? s.mass : s.all_mass + i, layout, p.scale);
      if (a.dv.data != nullptr) key_product<I>(p, h, b, s.p, s.dy, layout, s.dv, add, &ahead);
      if (a.dk.data != nullptr) key_product<I>(p, h, b, s.ds, s.q, layout, s.dk, add, &ahead);
      if (a.dq.data != nullptr && one_block) {
        query_product<I>(p, h, b, s.ds, s.k, layout, s.dq, false, &ahead);
        unpack_rows<I>(s.dq, layout.stride, nullptr, gradients, a.dq, h.query + i, b.queries, h.column, d);
      } else if (a.dq.data != nullptr) {
        query_product<I>(p, h, b, s.ds, s.k, layout, s.dq + i * layout.stride, true, &ahead);
      }
      i += b.queries;
    }
    if (a.dk.data != nullptr) unpack_rows<I>(s.dk, layout.stride, nullptr, gradients, a.dk, h.key + j, keys, h.column, d);
    if (a.dv.data != nullptr) unpack_rows<I>(s.dv, layout.stride, nullptr, gradients, a.dv, h.key + j, keys, h.column, d);
  }
  if (!one_block && a.dq.data != nullptr) unpack_rows<I>(s.dq, layout.stride, nullptr, gradients, a.dq, h.query, h.queries, h.column, d);
}

template <class I>
void one_head(const AttentionForward& a, std::int64_t sequence, std::int64_t head, std::int64_t next, float* scratch) {
#if defined(__AVX512BF16__)
  const Head h = head_of(a.problem, sequence, head);
  if (a.problem.q.dtype == DType::bf16 && suits_tiles(a.problem.head_dim, h.queries, h.keys))
    return Tiles<I>::forward(a, h, head, next, scratch);
#endif
  forward_head<I>(a, sequence, head, next, scratch);
}

template <class I>
void one_head(const AttentionBackward& a, std::int64_t sequence, std::int64_t head, std::int64_t next, float* scratch) {
#if defined(__AVX512BF16__)
  const Head h = head_of(a.problem, sequence, head);
  if (a.problem.q.dtype == DType::bf16 && a.dy.dtype == DType::bf16 && suits_tiles(a.problem.head_dim, h.queries, h.keys))
    return Tiles<I>::backward(a, h, head, next, scratch);
#endif
  backward_head<I>(a, sequence, head, next, scratch);
}

template <class I, class Args>
void all_heads(const Args& a) {
  const AttentionProblem& p = a.problem;
  const std::int64_t floats = scratch_floats(a);
  const Runs runs{p.sequences * p.heads, p.slots};
  parallel_for_slots(runs.n, p.slots, [&](std::int64_t slot, std::int64_t i) {
    const std::int64_t item = runs.at(i);
    one_head<I>(a, item / p.heads, item % p.heads, runs.at(i + p.slots), p.scratch + slot * floats);
    end_past_caches();
  });
}

}  // namespace

template <class I>
void kernel(I, const AttentionForward& a) {
  all_heads<I>(a);
}
template void kernel(TWINLENS_ISA, const AttentionForward&);

template <class I>
void kernel(I, const AttentionBackward& a) {
  all_heads<I>(a);
}
template void kernel(TWINLENS_ISA, const AttentionBackward&);

}  // namespace twinlens
