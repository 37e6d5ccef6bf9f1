#pragma once
// Walks N operands of one broadcast shape together, in row-major order of that shape, whatever their layouts.

#include <cstdint>

#include "kernels/cpu/strided_plan.h"
#include "kernels/cpu/vec/vec.h"

#include "twinlens/kernels/parallel.h"
#include "twinlens/kernels/view.h"

namespace twinlens {

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
