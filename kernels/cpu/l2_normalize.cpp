#include "twinlens/kernels/l2_normalize.h"

#include "kernels/cpu/vec/vec.h"

#include "twinlens/kernels/parallel.h"

namespace twinlens {
namespace {

template <class I, class T>
TWINLENS_INLINE void forward_row(const L2NormalizeForward& a, std::int64_t r) {
  using V = Vec<I>;
  const T* x = a.x.row<T>(r);
  T* y = a.y.row<T>(r);
  V squares(0.0F);
  for_lanes<I>(a.x.cols, [&](std::int64_t i, std::int64_t n) {
    const V v = load_lanes<I>(x + i, n);
    squares = V::fma(v, v, squares);
  });
  const float norm = __builtin_sqrtf(squares.sum());
  const V divisor(norm < a.eps ? a.eps : norm);
  for_lanes<I>(a.x.cols, [&](std::int64_t i, std::int64_t n) { store_lanes<I>(load_lanes<I>(x + i, n) / divisor, y + i, n); });
  a.norm[r] = norm;
}

template <class I, class T, class D>
TWINLENS_INLINE void backward_row(const L2NormalizeBackward& a, std::int64_t r) {
  using V = Vec<I>;
  const T* y = a.y.row<T>(r);
  const D* dy = a.dy.row<D>(r);
  T* dx = a.dx.row<T>(r);
  const bool clamped = a.norm[r] < a.eps;
  const V inverse(1.0F / (clamped ? a.eps : a.norm[r]));
  V products(0.0F);
  if (!clamped) {
    for_lanes<I>(a.y.cols,
                 [&](std::int64_t i, std::int64_t n) { products = V::fma(load_lanes<I>(dy + i, n), load_lanes<I>(y + i, n), products); });
  }
  const V dot(products.sum());
  for_lanes<I>(a.y.cols, [&](std::int64_t i, std::int64_t n) {
    store_lanes<I>((load_lanes<I>(dy + i, n) - load_lanes<I>(y + i, n) * dot) * inverse, dx + i, n);
  });
}

}  // namespace

template <class I>
void kernel(I, const L2NormalizeForward& a) {
  visit_float(a.x.dtype, [&]<class T>(TypeTag<T>) {
    parallel_for(row_count(a.x), row_grain(row_count(a.x), a.x.cols), [&](std::int64_t begin, std::int64_t end) {
      for (std::int64_t r = begin; r < end; ++r) forward_row<I, T>(a, r);
    });
  });
}
template void kernel(TWINLENS_ISA, const L2NormalizeForward&);

template <class I>
void kernel(I, const L2NormalizeBackward& a) {
  visit_float(a.y.dtype, [&]<class T>(TypeTag<T>) {
    visit_float(a.dy.dtype, [&]<class D>(TypeTag<D>) {
      parallel_for(row_count(a.y), row_grain(row_count(a.y), a.y.cols), [&](std::int64_t begin, std::int64_t end) {
        for (std::int64_t r = begin; r < end; ++r) backward_row<I, T, D>(a, r);
      });
    });
  });
}
template void kernel(TWINLENS_ISA, const L2NormalizeBackward&);

}  // namespace twinlens
