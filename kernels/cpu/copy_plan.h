#pragma once
// The layout of a copy with neighbouring dimensions merged where they are dense on both sides and sizes of 1 dropped. Shared by the CPU
// and CUDA copies; both walk `shape` with the last dimension innermost.

#include "twinlens/kernels/copy.h"

namespace twinlens {

struct CopyPlan {
  int rank = 0;  // at least 1
  std::int64_t shape[kMaxRank] = {}, sx[kMaxRank] = {}, sy[kMaxRank] = {};
};

[[gnu::always_inline]] inline CopyPlan copy_plan(const Copy& a) {
  CopyPlan p;
  for (int d = 0; d < a.x.rank; ++d) {
    if (a.x.shape[d] == 1) continue;
    const int last = p.rank - 1;
    if (p.rank > 0 && p.sx[last] == a.x.strides[d] * a.x.shape[d] && p.sy[last] == a.y.strides[d] * a.x.shape[d]) {
      p.shape[last] *= a.x.shape[d];
      p.sx[last] = a.x.strides[d];
      p.sy[last] = a.y.strides[d];
    } else {
      p.shape[p.rank] = a.x.shape[d];
      p.sx[p.rank] = a.x.strides[d];
      p.sy[p.rank] = a.y.strides[d];
      ++p.rank;
    }
  }
  if (p.rank == 0) {
    p.rank = 1;
    p.shape[0] = p.sx[0] = p.sy[0] = 1;
  }
  return p;
}

// One run of neighbouring elements on both sides.
[[gnu::always_inline]] inline bool is_dense(const CopyPlan& p) { return p.rank == 1 && p.sx[0] == 1 && p.sy[0] == 1; }

}  // namespace twinlens
