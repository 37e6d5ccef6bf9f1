#pragma once
// Slices of a tensor by index, and their sum back. A tensor is (outer, V, inner) with the indexed dimension in the middle; an embedding
// table is the case outer = 1.
//   select       y[o, i, :] = x[o, ids[i], :]
//   scatter add  y[o, ids[i], :] += x[o, i, :], in the order of i: the same bits for any thread count, repeated indices included.

#include "twinlens/kernels/run.h"
#include "twinlens/kernels/view.h"

namespace twinlens {

struct IndexSelect {
  static constexpr const char* kName = "index_select";
  static constexpr bool kCuda = false;
  ConstBuffer x;            // (outer, size, inner) of any dtype
  const std::int64_t* ids;  // (count), each in [0, size)
  Buffer y;                 // (outer, count, inner), dtype of x
  std::int64_t outer, size, count, inner;
};
template <class I>
void kernel(I, const IndexSelect&);

struct ScatterAdd {
  static constexpr const char* kName = "scatter_add";
  static constexpr bool kCuda = false;
  ConstBuffer x;            // (outer, count, inner) float
  const std::int64_t* ids;  // (count), each in [0, size)
  float* y;                 // (outer, size, inner): sums of many small numbers are kept in f32
  std::int64_t outer, size, count, inner;
};
template <class I>
void kernel(I, const ScatterAdd&);

}  // namespace twinlens
