#include "twinlens/kernels/cross_entropy.h"

#include "kernels/cpu/vec/softmax_row.h"

#include "twinlens/kernels/parallel.h"

namespace twinlens {
namespace {

template <class F>
TWINLENS_INLINE void for_rows(const ConstRows& logits, F&& f) {
  parallel_for(row_count(logits), row_grain(row_count(logits), logits.cols), [&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t r = begin; r < end; ++r) f(r);
  });
}

// Rows are summed one by one in double: the same bits for any thread count.
TWINLENS_INLINE void mean_of_rows(const float* row_loss, std::int64_t rows, std::int64_t counted, float* loss, float* weight) {
  double total = 0.0;
  for (std::int64_t r = 0; r < rows; ++r) total += static_cast<double>(row_loss[r]);
  *weight = counted > 0 ? static_cast<float>(1.0 / static_cast<double>(counted)) : 0.0F;
  *loss = counted > 0 ? static_cast<float>(total / static_cast<double>(counted)) : 0.0F;
}

template <class I, class T>
TWINLENS_INLINE void forward_row(const CrossEntropyForward& a, std::int64_t r) {
  if (a.targets[r] == a.ignore) {
    a.max[r] = a.others[r] = a.row_loss[r] = 0.0F;
    return;
  }
  const T* x = a.logits.row<T>(r);
  const SoftmaxRow row = softmax_row<I>(x, a.logits.cols);
  a.max[r] = row.max;
  a.others[r] = row.others;
  a.row_loss[r] = (row.max - Vec<I>::widen(x[a.targets[r]])) + log1p_of<I>(row.others);
}

template <class I, class T>
TWINLENS_INLINE void backward_row(const CrossEntropyBackward& a, std::int64_t r) {
  using V = Vec<I>;
  const std::int64_t columns = a.logits.cols, target = a.targets[r];
  T* dx = a.dlogits.row<T>(r);
  if (target == a.ignore) {
    std::memset(dx, 0, static_cast<std::size_t>(columns) * sizeof(T));
    return;
  }
  const T* x = a.logits.row<T>(r);
  const float scale = *a.weight * *a.dy, others = a.others[r];
  const V max(a.max[r]), factor(scale / (1.0F + others));
  const float at_target = Vec<I>::widen(x[target]);
  for_lanes<I>(columns,
               [&](std::int64_t i, std::int64_t n) { store_lanes<I>(Math<I>::exp(load_lanes<I>(x + i, n) - max) * factor, dx + i, n); });
  const float p = Math<I>::exp(V(at_target) - max).raw[0] / (1.0F + others);
  const float p_minus_1 = at_target == a.max[r] ? -others / (1.0F + others) : p - 1.0F;
  dx[target] = Vec<I>::template narrow<T>(scale * p_minus_1);
}

template <class I, class T>
TWINLENS_INLINE void soft_forward_row(const SoftCrossEntropyForward& a, std::int64_t r) {
  using V = Vec<I>;
  const T* x = a.logits.row<T>(r);
  const float* q = a.targets.row<float>(r);
  const SoftmaxRow row = softmax_row<I>(x, a.logits.cols);
  const V max(row.max), log_sum(log1p_of<I>(row.others));
  V loss(0.0F);
  for_lanes<I>(a.logits.cols, [&](std::int64_t i, std::int64_t n) {
    const V target = load_lanes<I>(q + i, n);
    const V share = target * ((max - load_lanes<I>(x + i, n)) + log_sum);
    loss += V::select(target.raw == 0.0F, V(0.0F), share);
  });
  a.max[r] = row.max;
  a.others[r] = row.others;
  a.row_loss[r] = loss.sum();
}

template <class I, class T>
TWINLENS_INLINE void soft_backward_row(const SoftCrossEntropyBackward& a, std::int64_t r) {
  using V = Vec<I>;
  const T* x = a.logits.row<T>(r);
  const float* q = a.targets.row<float>(r);
  const V scale(*a.weight * *a.dy), max(a.max[r]), others(a.others[r]), inverse(1.0F / (1.0F + a.others[r]));
  if (a.dlogits.data != nullptr) {
    T* dx = a.dlogits.row<T>(r);
    V sums(0.0F);
    for_lanes<I>(a.logits.cols, [&](std::int64_t i, std::int64_t n) { sums += load_lanes<I>(q + i, n); });
    const V total(sums.sum());
    for_lanes<I>(a.logits.cols, [&](std::int64_t i, std::int64_t n) {
      const V v = load_lanes<I>(x + i, n), target = load_lanes<I>(q + i, n);
      const V apart = Math<I>::exp(v - max) * inverse * total - target;
      const V together = ((total - target) - target * others) * inverse;  // the same where x = max, without cancellation
      store_lanes<I>(scale * V::select(v.raw == max.raw, together, apart), dx + i, n);
    });
  }
  if (a.dtargets.data != nullptr) {
    float* dq = a.dtargets.row<float>(r);
    const V log_sum(log1p_of<I>(a.others[r]));
    for_lanes<I>(a.logits.cols,
                 [&](std::int64_t i, std::int64_t n) { store_lanes<I>(scale * ((max - load_lanes<I>(x + i, n)) + log_sum), dq + i, n); });
  }
}

}  // namespace

template <class I>
void kernel(I, const CrossEntropyForward& a) {
  visit_float(a.logits.dtype, [&]<class T>(TypeTag<T>) { for_rows(a.logits, [&](std::int64_t r) { forward_row<I, T>(a, r); }); });
  const std::int64_t rows = row_count(a.logits);
  std::int64_t counted = 0;
  for (std::int64_t r = 0; r < rows; ++r) counted += a.targets[r] != a.ignore;
  mean_of_rows(a.row_loss, rows, counted, a.loss, a.weight);
}
template void kernel(TWINLENS_ISA, const CrossEntropyForward&);

template <class I>
void kernel(I, const CrossEntropyBackward& a) {
  visit_float(a.logits.dtype, [&]<class T>(TypeTag<T>) { for_rows(a.logits, [&](std::int64_t r) { backward_row<I, T>(a, r); }); });
}
template void kernel(TWINLENS_ISA, const CrossEntropyBackward&);

template <class I>
void kernel(I, const SoftCrossEntropyForward& a) {
  visit_float(a.logits.dtype, [&]<class T>(TypeTag<T>) { for_rows(a.logits, [&](std::int64_t r) { soft_forward_row<I, T>(a, r); }); });
  const std::int64_t rows = row_count(a.logits);
  mean_of_rows(a.row_loss, rows, rows, a.loss, a.weight);
}
template void kernel(TWINLENS_ISA, const SoftCrossEntropyForward&);

template <class I>
void kernel(I, const SoftCrossEntropyBackward& a) {
  visit_float(a.logits.dtype, [&]<class T>(TypeTag<T>) { for_rows(a.logits, [&](std::int64_t r) { soft_backward_row<I, T>(a, r); }); });
}
template void kernel(TWINLENS_ISA, const SoftCrossEntropyBackward&);

}  // namespace twinlens
