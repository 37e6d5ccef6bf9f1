#pragma once
// The largest elements of each row, largest first, equals by lower index; NaN counts as larger than every number, as in PyTorch.
// argmax is the index of the first of them. A heap of k candidates, most columns dismissed a block at a time: O(C + changes log k).

#include "twinlens/kernels/run.h"
#include "twinlens/kernels/view.h"

namespace twinlens {

struct TopKForward {
  static constexpr const char* kName = "topk_forward";
  static constexpr bool kCuda = true;
  ConstRows x;            // (N, C) float, C >= k
  Rows values;            // (N, k), dtype of x, dense
  std::int64_t* indices;  // (N, k)
};
template <class I>
void kernel(I, const TopKForward&);
void launch(Cuda, Stream&, const TopKForward&);

// dx[r, indices[r, j]] = dy[r, j], 0 elsewhere.
struct TopKBackward {
  static constexpr const char* kName = "topk_backward";
  static constexpr bool kCuda = true;
  ConstRows dy;                 // (N, k) float
  const std::int64_t* indices;  // (N, k)
  Rows dx;                      // (N, C), dtype of dy
};
template <class I>
void kernel(I, const TopKBackward&);
void launch(Cuda, Stream&, const TopKBackward&);

struct ArgMax {
  static constexpr const char* kName = "argmax";
  static constexpr bool kCuda = true;
  ConstRows x;            // (N, C) float or i64, C >= 1
  std::int64_t* indices;  // (N)
};
template <class I>
void kernel(I, const ArgMax&);
void launch(Cuda, Stream&, const ArgMax&);

}  // namespace twinlens
