#include "twinlens/kernels/batch_norm.h"

#include "kernels/cpu/vec/vec.h"

#include "twinlens/kernels/parallel.h"

namespace twinlens {
namespace {

constexpr std::int64_t kBlock = kBatchNormRowsPerBlock;

// parts[block][c] = sum over the block's rows of value(row, i, lanes); then out[c] = factor * sum over blocks, in order.
template <class I, class Value>
TWINLENS_INLINE void column_sums(std::int64_t rows, std::int64_t c, float* parts, float* out, double factor, Value value) {
  const std::int64_t blocks = (rows + kBlock - 1) / kBlock;
  parallel_for(rows, kBlock, [&](std::int64_t begin, std::int64_t end) {
    float* part = parts + begin / kBlock * c;
    for_lanes<I>(c, [&](std::int64_t i, std::int64_t n) {
      Vec<I> sum(0.0F);
      for (std::int64_t r = begin; r < end; ++r) sum += value(r, i, n);
      store_lanes<I>(sum, part + i, n);
    });
  });
  // The few block sums are added in double: statistics go into every value behind them.
  parallel_for(c, 256, [&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t i = begin; i < end; ++i) {
      double sum = 0.0;
      for (std::int64_t b = 0; b < blocks; ++b) sum += static_cast<double>(parts[b * c + i]);
      out[i] = static_cast<float>(sum * factor);
    }
  });
}

template <class I>
TWINLENS_INLINE Vec<I> rstd_of(const float* variance, std::int64_t i, std::int64_t n, float eps) {
  return Vec<I>(1.0F) / Vec<I>::sqrt(load_lanes<I>(variance + i, n, 1.0F) + Vec<I>(eps));
}

template <class I, class T>
void backward(const BatchNormBackward& a) {
  using V = Vec<I>;
  const std::int64_t rows = row_count(a.x), c = a.x.cols;
  const auto gradient = [&](std::int64_t r, std::int64_t i, std::int64_t n) {
    V g = load_lanes<I>(a.dy.row<T>(r) + i, n);
    if (a.relu) g = V::select(load_lanes<I>(a.y.row<T>(r) + i, n).raw > 0.0F, g, V(0.0F));
    return g;
  };
  const auto normalised = [&](std::int64_t r, std::int64_t i, std::int64_t n) {
    return (load_lanes<I>(a.x.row<T>(r) + i, n) - load_lanes<I>(a.mean + i, n)) * rstd_of<I>(a.variance, i, n, a.eps);
  };
  column_sums<I>(rows, c, a.scratch, a.dbeta, 1.0, gradient);
  column_sums<I>(rows, c, a.scratch, a.dgamma, 1.0,
                 [&](std::int64_t r, std::int64_t i, std::int64_t n) { return gradient(r, i, n) * normalised(r, i, n); });
  if (a.dx.data == nullptr && a.dresidual.data == nullptr) return;
  const V inverse(rows > 0 ? 1.0F / static_cast<float>(rows) : 0.0F);
  parallel_for(rows, 16, [&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t r = begin; r < end; ++r) {
      for_lanes<I>(c, [&](std::int64_t i, std::int64_t n) {
        const V g = gradient(r, i, n);
        if (a.dresidual.data != nullptr) store_lanes<I>(g, a.dresidual.row<T>(r) + i, n);
        if (a.dx.data == nullptr) return;
        V d = g;
        if (a.batch_statistics) d = g - (load_lanes<I>(a.dbeta + i, n) + normalised(r, i, n) * load_lanes<I>(a.dgamma + i, n)) * inverse;
        store_lanes<I>(d * load_lanes<I>(a.gamma + i, n) * rstd_of<I>(a.variance, i, n, a.eps), a.dx.row<T>(r) + i, n);
      });
    }
  });
}

}  // namespace

template <class I>
void kernel(I, const BatchNormStatistics& a) {
  const std::int64_t rows = row_count(a.x), c = a.x.cols;
  const double factor = rows > 0 ? 1.0 / static_cast<double>(rows) : 0.0;
  visit_float(a.x.dtype, [&]<class T>(TypeTag<T>) {
    column_sums<I>(rows, c, a.scratch, a.mean, factor,
                   [&](std::int64_t r, std::int64_t i, std::int64_t n) { return load_lanes<I>(a.x.row<T>(r) + i, n); });
    column_sums<I>(rows, c, a.scratch, a.variance, factor, [&](std::int64_t r, std::int64_t i, std::int64_t n) {
      const Vec<I> d = load_lanes<I>(a.x.row<T>(r) + i, n) - load_lanes<I>(a.mean + i, n);
      return d * d;
    });
  });
}
template void kernel(TWINLENS_ISA, const BatchNormStatistics&);

template <class I>
void kernel(I, const BatchNormForward& a) {
  using V = Vec<I>;
  visit_float(a.x.dtype, [&]<class T>(TypeTag<T>) {
    parallel_for(row_count(a.x), 16, [&](std::int64_t begin, std::int64_t end) {
      for (std::int64_t r = begin; r < end; ++r) {
        for_lanes<I>(a.x.cols, [&](std::int64_t i, std::int64_t n) {
          const V xhat = (load_lanes<I>(a.x.row<T>(r) + i, n) - load_lanes<I>(a.mean + i, n)) * rstd_of<I>(a.variance, i, n, a.eps);
          V y = V::fma(xhat, load_lanes<I>(a.gamma + i, n), load_lanes<I>(a.beta + i, n));
          if (a.residual.data != nullptr) y += load_lanes<I>(a.residual.row<T>(r) + i, n);
          if (a.relu) y = V::max(y, V(0.0F));
          store_lanes<I>(y, a.y.row<T>(r) + i, n);
        });
      }
    });
  });
}
template void kernel(TWINLENS_ISA, const BatchNormForward&);

template <class I>
void kernel(I, const BatchNormBackward& a) {
  visit_float(a.x.dtype, [&]<class T>(TypeTag<T>) { backward<I, T>(a); });
}
template void kernel(TWINLENS_ISA, const BatchNormBackward&);

}  // namespace twinlens
