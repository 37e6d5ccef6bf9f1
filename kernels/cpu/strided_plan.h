#pragma once
// How N operands of one broadcast shape lie relative to each other. Shared by the CPU and CUDA kernels that walk them together.

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
[[gnu::always_inline]] inline StridedPlan<N> plan_strided(const ConstStrided* const (&x)[N]) {
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

}  // namespace twinlens
