#include "twinlens/kernels/softmax.h"

#include "kernels/cpu/vec/softmax_row.h"

#include "twinlens/kernels/parallel.h"

namespace twinlens {
namespace {

// Row r; the row `next` is asked for on the way, its x while exponentials are computed and, in f32, its y while they are scaled.
template <class I, class T>
TWINLENS_INLINE void forward_row(const SoftmaxForward& a, std::int64_t r, std::int64_t next) {
  using V = Vec<I>;
  const T *x = a.x.row<T>(r), *x_ahead = a.x.row<T>(next);
  T *y = a.y.row<T>(r), *y_ahead = a.y.row<T>(next);
  const auto ask_x = [&](std::int64_t i) __attribute__((always_inline)) { __builtin_prefetch(x_ahead + i, 0, 2); };
  const auto ask_y = [&](std::int64_t i) __attribute__((always_inline)) { __builtin_prefetch(y_ahead + i, 1, 2); };
  const auto ask_both = [&](std::int64_t i, std::int64_t, V) __attribute__((always_inline)) {
    ask_x(i);
    ask_y(i);
  };
  if (a.log) {
    const SoftmaxRow row = softmax_row<I>(x, a.x.cols, ask_both);
    const V max(row.max), log_sum(log1p_of<I>(row.others));
    for_lanes<I>(a.x.cols, [&](std::int64_t i, std::int64_t n) { store_lanes<I>((load_lanes<I>(x + i, n) - max) - log_sum, y + i, n); });
  } else if constexpr (sizeof(T) == sizeof(float)) {
    const SoftmaxRow row = softmax_row<I>(x, a.x.cols, [&](std::int64_t i, std::int64_t n, V e) {
      ask_x(i);
      store_lanes<I>(e, y + i, n);
    });
    const V inverse(1.0F / (1.0F + row.others));
    for_lanes<I>(a.x.cols, [&](std::int64_t i, std::int64_t n) {
      ask_y(i);
      store_lanes<I>(load_lanes<I>(y + i, n) * inverse, y + i, n);
    });
  } else {  // (the exponentials would be rounded twice)
    const SoftmaxRow row = softmax_row<I>(x, a.x.cols, ask_both);
    const V max(row.max), inverse(1.0F / (1.0F + row.others));
    for_lanes<I>(a.x.cols, [&](std::int64_t i, std::int64_t n) {
      store_lanes<I>(Math<I>::exp_nonpositive(load_lanes<I>(x + i, n) - max) * inverse, y + i, n);
    });
  }
}

template <class I, class T, class D>
TWINLENS_INLINE void backward_row(const SoftmaxBackward& a, std::int64_t r, std::int64_t next) {
  using V = Vec<I>;
  const T *y = a.y.row<T>(r), *y_ahead = a.y.row<T>(next);
  const D *dy = a.dy.row<D>(r), *dy_ahead = a.dy.row<D>(next);
  T *dx = a.dx.row<T>(r), *dx_ahead = a.dx.row<T>(next);
  V sums(0.0F);
  for_lanes<I>(a.y.cols, [&](std::int64_t i, std::int64_t n) {
    const V d = load_lanes<I>(dy + i, n);
    sums = a.log ? sums + d : V::fma(d, load_lanes<I>(y + i, n), sums);
  });
  const V sum(sums.sum());
  for_lanes<I>(a.y.cols, [&](std::int64_t i, std::int64_t n) {
    __builtin_prefetch(y_ahead + i, 0, 2);
    __builtin_prefetch(dy_ahead + i, 0, 2);
    __builtin_prefetch(dx_ahead + i, 1, 2);
    const V d = load_lanes<I>(dy + i, n), v = load_lanes<I>(y + i, n);
    store_lanes<I>(a.log ? d - Math<I>::exp_nonpositive(v) * sum : v * (d - sum), dx + i, n);
  });
}

}  // namespace

template <class I>
void kernel(I, const SoftmaxForward& a) {
  visit_float(a.x.dtype, [&]<class T>(TypeTag<T>) {
    parallel_for(row_count(a.x), row_grain(a.x.cols), [&](std::int64_t begin, std::int64_t end) {
      for (std::int64_t r = begin; r < end; ++r) forward_row<I, T>(a, r, r + 1 < end ? r + 1 : r);
    });
  });
}
template void kernel(TWINLENS_ISA, const SoftmaxForward&);

template <class I>
void kernel(I, const SoftmaxBackward& a) {
  visit_float(a.y.dtype, [&]<class T>(TypeTag<T>) {
    visit_float(a.dy.dtype, [&]<class D>(TypeTag<D>) {
      parallel_for(row_count(a.y), row_grain(a.y.cols), [&](std::int64_t begin, std::int64_t end) {
        for (std::int64_t r = begin; r < end; ++r) backward_row<I, T, D>(a, r, r + 1 < end ? r + 1 : r);
      });
    });
  });
}
template void kernel(TWINLENS_ISA, const SoftmaxBackward&);

}  // namespace twinlens
