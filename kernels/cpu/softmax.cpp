#include "twinlens/kernels/softmax.h"

#include "kernels/cpu/vec/four.h"
#include "kernels/cpu/vec/past_caches.h"
#include "kernels/cpu/vec/softmax_row.h"

#include "twinlens/kernels/parallel.h"

namespace twinlens {
namespace {

constexpr std::int64_t kKept = 4096;  // columns whose exponentials are kept

// Rows [begin, end). The row behind is asked for on the way.
template <class I, class T>
TWINLENS_INLINE void forward_rows(const SoftmaxForward& a, const RowOutput& out, std::int64_t begin, std::int64_t end) {
  using V = Vec<I>;
  const std::int64_t c = a.x.cols;
  for (std::int64_t r = begin; r < end; ++r) {
    const T *x = a.x.row<T>(r), *x_ahead = a.x.row<T>(r + 1 < end ? r + 1 : r);
    T *y = a.y.row<T>(r), *y_ahead = a.y.row<T>(r + 1 < end ? r + 1 : r);
    const SoftmaxRow row = softmax_row<I>(x, c, [&](std::int64_t i) {
      __builtin_prefetch(x_ahead + i, 0, 2);
      out.ask(y_ahead + i);
    });
    const V max(row.max), log_sum(log1p_of<I>(row.others)), inverse(1.0F / (1.0F + row.others));
    for_lanes<I>(c, [&](std::int64_t i, std::int64_t n) {
      const V v = load_lanes<I>(x + i, n) - max;
      out.store<I>(a.log ? v - log_sum : Math<I>::exp_nonpositive(v) * inverse, y + i, n);
    });
  }
}

// The same for softmax of up to kKept columns: exponentials are computed once, and divided by their sum while those of the next row are
// computed, so that memory has something to do all the time.
template <class I, class T>
TWINLENS_INLINE void forward_kept_rows(const SoftmaxForward& a, const RowOutput& out, std::int64_t begin, std::int64_t end) {
  using J = typename SideBySide<I>::Set;
  alignas(64) float kept[kKept];  // of this row up to the column in work, of the row before from there on
  float inverse = 0.0F;           // of the row before
  const std::int64_t c = a.x.cols, whole = c - c % J::kWidth;
  const auto along_row = [&](auto&& f) __attribute__((always_inline)) {
    for (std::int64_t i = 0; i < whole; i += J::kWidth) f(TypeTag<J>{}, i, J::kWidth);
    for_lanes<I>(c - whole, [&](std::int64_t i, std::int64_t n) { f(TypeTag<I>{}, whole + i, n); });
  };
  const auto scale = [&]<class S>(TypeTag<S>, std::int64_t r, std::int64_t i, std::int64_t n) __attribute__((always_inline)) {
    out.store<S>(Vec<S>::load(kept + i) * Vec<S>(inverse), a.y.row<T>(r) + i, n);
  };
  for (std::int64_t r = begin; r < end; ++r) {
    const T *x = a.x.row<T>(r), *ahead = a.x.row<T>(r + 1 < end ? r + 1 : r), *y = a.y.row<T>(r);
    const float max = row_max<I>(x, c);
    Vec<I> sum(0.0F);
    along_row([&]<class S>(TypeTag<S> set, std::int64_t i, std::int64_t n) {
      for (std::int64_t l = 0; l < S::kWidth; l += I::kWidth) {
        __builtin_prefetch(ahead + i + l, 0, 2);
        out.ask(y + i + l);
      }
      const Vec<S> e = Math<S>::exp_nonpositive(load_lanes<S>(x + i, n, kMinusInfinity) - Vec<S>(max));
      if constexpr (__is_same(S, I)) {
        sum += e;
      } else {
        sum += e.added();
      }
      if (r > begin) scale(set, r - 1, i, n);
      e.store(kept + i);
    });
    inverse = 1.0F / sum.sum();
  }
  along_row([&](auto set, std::int64_t i, std::int64_t n) { scale(set, end - 1, i, n); });
}

template <class I, class T, class D>
TWINLENS_INLINE void backward_row(const SoftmaxBackward& a, const RowOutput& out, std::int64_t r, std::int64_t next) {
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
    out.ask(dx_ahead + i);
    const V d = load_lanes<I>(dy + i, n), v = load_lanes<I>(y + i, n);
    out.store<I>(a.log ? d - Math<I>::exp_nonpositive(v) * sum : v * (d - sum), dx + i, n);
  });
}

}  // namespace

template <class I>
void kernel(I, const SoftmaxForward& a) {
  const RowOutput out{goes_past_caches(a.y, a.x)};
  visit_float(a.x.dtype, [&]<class T>(TypeTag<T>) {
    parallel_for(row_count(a.x), 4 * row_grain(a.x.cols), [&](std::int64_t begin, std::int64_t end) {
      if (a.log || a.x.cols > kKept) {
        forward_rows<I, T>(a, out, begin, end);
      } else {
        forward_kept_rows<I, T>(a, out, begin, end);
      }
      out.end();
    });
  });
}
template void kernel(TWINLENS_ISA, const SoftmaxForward&);

template <class I>
void kernel(I, const SoftmaxBackward& a) {
  const RowOutput out{goes_past_caches(a.dx, a.y, a.dy)};
  visit_float(a.y.dtype, [&]<class T>(TypeTag<T>) {
    visit_float(a.dy.dtype, [&]<class D>(TypeTag<D>) {
      parallel_for(row_count(a.y), row_grain(a.y.cols), [&](std::int64_t begin, std::int64_t end) {
        for (std::int64_t r = begin; r < end; ++r) backward_row<I, T, D>(a, out, r, r + 1 < end ? r + 1 : r);
        out.end();
      });
    });
  });
}
template void kernel(TWINLENS_ISA, const SoftmaxBackward&);

}  // namespace twinlens
