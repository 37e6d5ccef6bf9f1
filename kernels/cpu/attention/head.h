#pragma once
// What the two forms of attention have in common: a head of a sequence, its blocks of scores (keys x queries, queries along the lanes).

#include "kernels/cpu/vec/past_caches.h"
#include "kernels/cpu/vec/prefetch.h"
#include "kernels/cpu/vec/vec.h"

#include "twinlens/kernels/attention.h"

namespace twinlens::heads {

TWINLENS_INLINE std::int64_t least(std::int64_t a, std::int64_t b) { return a < b ? a : b; }
TWINLENS_INLINE std::int64_t most(std::int64_t a, std::int64_t b) { return a > b ? a : b; }

// One sequence and head.
struct Head {
  std::int64_t query, queries, key, keys;  // first row and number of rows
  std::int64_t column;                     // of q, k, v, y
  std::int64_t offset;                     // keys - queries: query i sees keys j <= i + offset when causal
  const float* bias;                       // (queries, keys) or null
};

TWINLENS_INLINE Head head_of(const AttentionProblem& p, std::int64_t sequence, std::int64_t head) {
  Head h;
  h.query = p.query_offsets[sequence];
  h.queries = p.query_offsets[sequence + 1] - h.query;
  h.key = p.key_offsets[sequence];
  h.keys = p.key_offsets[sequence + 1] - h.key;
  h.column = head * p.head_dim;
  h.offset = h.keys - h.queries;
  h.bias = p.bias == nullptr ? nullptr : p.bias + (p.bias_heads == 1 ? 0 : head) * h.queries * h.keys;
  return h;
}

// A block of queries against a block of keys.
struct Block {
  std::int64_t i, queries;  // first query in the sequence and number
  std::int64_t lanes;       // queries padded to whole registers
  std::int64_t j, keys;     // first key in the sequence and number that some query of the block sees
  std::int64_t stride;      // of the rows of a tile, at least lanes
  std::int64_t few;         // of the queries those behind the last whole register, if few_queries.h serves them
};

// Adds the bias and sets what a query must not see to -inf.
template <class I>
void mask_scores(const AttentionProblem& p, const Head& h, const Block& b, float* tile) {
  if (h.bias != nullptr) {
    for (std::int64_t i = 0; i < b.queries; ++i) {
      const float* row = h.bias + (b.i + i) * h.keys + b.j;
      for (std::int64_t j = 0; j < b.keys; ++j) tile[j * b.stride + i] += row[j];
    }
  }
  if (!p.causal) return;
  for (std::int64_t j = most(0, b.i + h.offset - b.j + 1); j < b.keys; ++j) {
    const std::int64_t hidden = least(b.lanes, b.j + j - h.offset - b.i);  // queries before key j
    for (std::int64_t i = 0; i < hidden; ++i) tile[j * b.stride + i] = -__builtin_inff();
  }
}

// Largest of a column of registers, 4 chains at a time.
template <class I>
TWINLENS_INLINE Vec<I> column_max(const float* column, std::int64_t rows, std::int64_t stride, Vec<I> top) {
  using V = Vec<I>;
  V chain[4] = {top, top, top, top};
  std::int64_t j = 0;
  for (; j + 4 <= rows; j += 4) {
    for (int c = 0; c < 4; ++c) chain[c] = V::max(chain[c], V::load(column + (j + c) * stride));
  }
  for (; j < rows; ++j) chain[0] = V::max(chain[0], V::load(column + j * stride));
  return V::max(V::max(chain[0], chain[1]), V::max(chain[2], chain[3]));
}

// How a head's columns of outputs that are written side by side are: past the caches if whole rows of a head are whole lines and the
// outputs together are large.
template <class... X>
TWINLENS_INLINE RowOutput outputs_of(std::int64_t d, const X&... x) {
  const std::int64_t bytes = (std::int64_t{0} + ... + (x.data != nullptr ? row_count(x) * x.cols * size_of(x.dtype) : 0));
  return {bytes >= past_caches_from() && (true && ... && (d * size_of(x.dtype) % 64 == 0 && can_go_past_caches(x)))};
}

// Rows that will be written, unless they go past the caches.
TWINLENS_INLINE void ahead_of_output(RowOutput out, const Rows& x, std::int64_t begin, std::int64_t rows, std::int64_t column,
                                     std::int64_t d, Prefetch& ahead) {
  if (!out.past_caches) ahead.add(x, begin, rows, column, d, true);
}

// What the thread will need after this head: the inputs of the item that it is likely to take next, of its queries those up to `queries`.
// Returns that item.
TWINLENS_INLINE Head ahead_of_inputs(const AttentionProblem& p, std::int64_t next, std::int64_t queries, Prefetch& ahead) {
  if (next >= p.sequences * p.heads) return Head{};
  const Head h = head_of(p, next / p.heads, next % p.heads);
  ahead.add(p.k, h.key, h.keys, h.column, p.head_dim, false);
  ahead.add(p.v, h.key, h.keys, h.column, p.head_dim, false);
  ahead.add(p.q, h.query, least(queries, h.queries), h.column, p.head_dim, false);
  return h;
}

// What the recomputed P, which sum to 1 + some ulps since the log-sum-exp is rounded, must be multiplied with to sum to 1. Without it what
// all dP of a row have in common would leave the ulps' share of itself in every dS, where exactly it leaves nothing.
template <class I>
TWINLENS_INLINE Vec<I> correction(const float* mass) {
  return Vec<I>(1.0F) / Vec<I>::max(Vec<I>::load(mass), Vec<I>(1e-30F));
}

}  // namespace twinlens::heads
