#pragma once
// What all attention kernels ask first: which rows and columns a (sequence, head) has.

#include <cstdint>

#include "twinlens/kernels/attention.h"

namespace twinlens::cuda {

struct Head {
  std::int64_t query, queries, key, keys;  // first row and number of rows
  std::int64_t column;                     // of q, k, v, y
  std::int64_t offset;                     // keys - queries: query i sees keys j <= i + offset when causal
  std::int64_t lse;                        // where the head's lse and delta of this sequence begin
  const float* bias;                       // (queries, keys) or null
};

__device__ inline Head head_of(const AttentionProblem& p, std::int64_t sequence, std::int64_t head) {
  Head h;
  h.query = p.query_offsets[sequence];
  h.queries = p.query_offsets[sequence + 1] - h.query;
  h.key = p.key_offsets[sequence];
  h.keys = p.key_offsets[sequence + 1] - h.key;
  h.column = head * p.head_dim;
  h.offset = h.keys - h.queries;
  h.lse = head * p.q.rows + h.query;
  h.bias = p.bias == nullptr ? nullptr : p.bias + (p.bias_heads == 1 ? 0 : head) * h.queries * h.keys;
  return h;
}

}  // namespace twinlens::cuda
