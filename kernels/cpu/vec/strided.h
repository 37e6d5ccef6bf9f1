#pragma once
// Walks N operands of one broadcast shape together, in row-major order of that shape, whatever their layouts.

#include <cstdint>

#include "kernels/cpu/vec/vec.h"

#include "twinlens/kernels/parallel.h"
#include "twinlens/kernels/view.h"

namespace twinlens {

// The common shape with its sizes of 1 dropped and neighbouring dimensions merged where all operands allow it: equal dense operands and
// scalars become one dimension, a row vector against rows becomes two.
template <int N>
struct StridedPlan {
  int rank = 0;
  std::int64_t count = 0;
  std::int64_t shape[kMaxRank] = {};
  std::int64_t strides[N][kMaxRank] = {};
};

template <int N>
TWINLENS_INLINE StridedPlan<N> plan_strided(const ConstStrided* const (&x)[N]) {
  StridedPlan<N> p;
  p.count = 1;
  for (int d = 0; d < x[0]->rank; ++d) {
    const std::int64_t size = x[0]->shape[d];
    p.count *= size;
    if (size == 1) continue;
    bool merges = p.rank > 0;
    for (int k = 0; k < N && merges; ++k) merges = p.strides[k][p.rank - 1] == x[k]->strides[d] * size;
    if (!merges) p.shape[p.rank++] = 1;
    p.shape[p.rank - 1] *= size;
    for (int k = 0; k < N; ++k) p.strides[k][p.rank - 1] = x[k]->strides[d];
  }
  if (p.rank == 0) {
    p.rank = 1;
    p.shape[0] = 1;
  }
  return p;
}

// Calls body(position, offsets, n) for runs of the innermost dimension that cover positions [begin, end): operand k starts at
// offsets[k] elements and moves by its innermost stride.
template <int N, class F>
TWINLENS_INLINE void for_runs(const StridedPlan<N>& p, std::int64_t begin, std::int64_t end, F&& body) {
  std::int64_t index[kMaxRank];
  std::int64_t offsets[N] = {};
  std::int64_t rest = begin;
  for (int d = p.rank - 1; d >= 0; --d) {
    index[d] = rest % p.shape[d];
    rest /= p.shape[d];
    for (int k = 0; k < N; ++k) offsets[k] += index[d] * p.strides[k][d];
  }
  const int inner = p.rank - 1;
  for (std::int64_t position = begin; position < end;) {
    const std::int64_t left = p.shape[inner] - index[inner];
    const std::int64_t n = left < end - position ? left : end - position;
    body(position, offsets, n);
    position += n;
    index[inner] += n;
    for (int k = 0; k < N; ++k) offsets[k] += n * p.strides[k][inner];
    for (int d = inner; d > 0 && index[d] == p.shape[d]; --d) {
      index[d] = 0;
      ++index[d - 1];
      for (int k = 0; k < N; ++k) offsets[k] += p.strides[k][d - 1] - p.shape[d] * p.strides[k][d];
    }
  }
}

}  // namespace twinlens
