#include "twinlens/kernels/batch_norm.h"

#include "kernels/cpu/vec/vec.h"

#include "twinlens/kernels/parallel.h"

namespace twinlens {
namespace {

constexpr std::int64_t kBlock = kBatchNormRowsPerBlock;
constexpr std::int64_t kRowsPerTask = 256;
constexpr std::int64_t kStrip = 512;  // channels that are worked on at a time: their constants stay in the first-level cache

// Narrow dense rows are read several at a time: (N, C) in memory is also (N / k, k C), whose column j is channel j % C.
struct Folded {
  std::int64_t rows, cols, times;
};
TWINLENS_INLINE Folded fold(std::int64_t rows, std::int64_t channels, bool dense) {
  std::int64_t times = 1;
  while (dense && channels * times < 64 && rows % (2 * times) == 0 && channels * times * 2 <= kStrip) times *= 2;
  return {rows / times, channels * times, times};
}
template <class R>
TWINLENS_INLINE bool is_dense(const R& x) {
  return x.data == nullptr || x.stride == x.cols;
}

// A constant of every channel, for the folded columns [begin, begin + n) of a strip.
struct Strip {
  alignas(64) float at[kStrip];
  template <class F>
  TWINLENS_INLINE void fill(std::int64_t begin, std::int64_t n, std::int64_t channels, F&& of_channel) {
    const std::int64_t own = n < channels ? n : channels;  // (folded columns are one strip, which begins at 0)
    for (std::int64_t i = 0; i < own; ++i) at[i] = of_channel(begin + i);
    for (std::int64_t i = own; i < n; ++i) at[i] = at[i - channels];
  }
};

TWINLENS_INLINE float rstd_of(float variance, float eps) { return 1.0F / __builtin_sqrtf(variance + eps); }

// Calls f(begin, count) for the strips of the columns.
template <class F>
TWINLENS_INLINE void for_strips(std::int64_t cols, F&& f) {
  for (std::int64_t begin = 0; begin < cols; begin += kStrip) f(begin, cols - begin < kStrip ? cols - begin : kStrip);
}

// Rows of a folded view.
template <class T, class R>
TWINLENS_INLINE auto* folded_row(const R& x, const Folded& f, std::int64_t r) {
  return x.template row<T>(0) + r * (f.times == 1 ? x.stride : f.cols);
}

// Sums over rows, `Sums` of them in one pass: values(row, column, place in the strip, lanes, term) sets their terms; out[sum][channel] is
// factor * the sum over a block's rows (four chains), then over blocks and folds in order, in double, since statistics go into every
// value behind them. prepare(begin, count) returns `values` for a strip of the columns.
template <class I, int Sums, class Prepare>
TWINLENS_INLINE void column_sums(const Folded& f, std::int64_t channels, float* parts, float* const (&out)[Sums], double factor,
                                 Prepare prepare) {
  using V = Vec<I>;
  constexpr int kChains = 4;
  const std::int64_t blocks = (f.rows + kBlock - 1) / kBlock, size = blocks * f.cols;
  parallel_for(f.rows, kBlock, [&](std::int64_t begin, std::int64_t end) {
    for_strips(f.cols, [&](std::int64_t first, std::int64_t count) {
      const auto values = prepare(first, count);
      for_lanes<I>(count, [&](std::int64_t i, std::int64_t n) {
        V sum[kChains][Sums];
        for (auto& chain : sum) {
          for (V& v : chain) v = V(0.0F);
        }
        std::int64_t r = begin;
        for (; r + kChains <= end; r += kChains) {
#pragma GCC unroll 4
          for (int chain = 0; chain < kChains; ++chain) {
            V term[Sums];
            values(r + chain, first + i, i, n, term);
            for (int s = 0; s < Sums; ++s) sum[chain][s] += term[s];
          }
        }
        for (; r < end; ++r) {
          V term[Sums];
          values(r, first + i, i, n, term);
          for (int s = 0; s < Sums; ++s) sum[0][s] += term[s];
        }
        float* to = parts + begin / kBlock * f.cols + first + i;
        for (int s = 0; s < Sums; ++s) store_lanes<I>((sum[0][s] + sum[1][s]) + (sum[2][s] + sum[3][s]), to + s * size, n);
      });
    });
  });
  parallel_for(channels, 64, [&](std::int64_t begin, std::int64_t end) {
    for (int s = 0; s < Sums; ++s) {
      for (std::int64_t c = begin; c < end; ++c) {
        double sum = 0.0;
        for (std::int64_t b = 0; b < blocks; ++b) {
          for (std::int64_t t = 0; t < f.times; ++t) sum += static_cast<double>(parts[s * size + b * f.cols + t * channels + c]);
        }
        out[s][c] = static_cast<float>(sum * factor);
      }
    }
  });
}

template <class I, class T>
TWINLENS_INLINE void statistics(const BatchNormStatistics& a) {
  using V = Vec<I>;
  const std::int64_t rows = row_count(a.x), c = a.x.cols;
  const double factor = rows > 0 ? 1.0 / static_cast<double>(rows) : 0.0;
  const Folded f = fold(rows, c, is_dense(a.x));
  column_sums<I, 1>(f, c, a.scratch, {a.mean}, factor, [&](std::int64_t, std::int64_t) {
    return [&](std::int64_t r, std::int64_t column, std::int64_t, std::int64_t n, V* term) {
      term[0] = load_lanes<I>(folded_row<T>(a.x, f, r) + column, n);
    };
  });
  column_sums<I, 1>(f, c, a.scratch, {a.variance}, factor, [&](std::int64_t first, std::int64_t count) {
    Strip mean;
    mean.fill(first, count, c, [&](std::int64_t i) { return a.mean[i]; });
    return [&, mean](std::int64_t r, std::int64_t column, std::int64_t i, std::int64_t n, V* term) {
      const V d = load_lanes<I>(folded_row<T>(a.x, f, r) + column, n) - load_lanes<I>(mean.at + i, n);
      term[0] = d * d;
    };
  });
}

template <class I, class T>
TWINLENS_INLINE void forward(const BatchNormForward& a) {
  using V = Vec<I>;
  const std::int64_t c = a.x.cols;
  const Folded f = fold(row_count(a.x), c, is_dense(a.x) && is_dense(a.y) && is_dense(a.residual));
  parallel_for(f.rows, kRowsPerTask, [&](std::int64_t begin, std::int64_t end) {
    for_strips(f.cols, [&](std::int64_t first, std::int64_t count) {
      Strip mean, rstd, gamma, beta;
      mean.fill(first, count, c, [&](std::int64_t i) { return a.mean[i]; });
      rstd.fill(first, count, c, [&](std::int64_t i) { return rstd_of(a.variance[i], a.eps); });
      gamma.fill(first, count, c, [&](std::int64_t i) { return a.gamma[i]; });
      beta.fill(first, count, c, [&](std::int64_t i) { return a.beta[i]; });
      for (std::int64_t r = begin; r < end; ++r) {
        const T* x = folded_row<T>(a.x, f, r) + first;
        const T* residual = a.residual.data == nullptr ? nullptr : folded_row<T>(a.residual, f, r) + first;
        T* to = folded_row<T>(a.y, f, r) + first;
        for_lanes<I>(count, [&](std::int64_t i, std::int64_t n) {
          const V xhat = (load_lanes<I>(x + i, n) - V::load(mean.at + i)) * V::load(rstd.at + i);
          V y = V::fma(xhat, V::load(gamma.at + i), V::load(beta.at + i));
          if (residual != nullptr) y += load_lanes<I>(residual + i, n);
          if (a.relu) y = V::max(y, V(0.0F));
          store_lanes<I>(y, to + i, n);
        });
      }
    });
  });
}

template <class I, class T>
TWINLENS_INLINE void backward(const BatchNormBackward& a) {
  using V = Vec<I>;
  const std::int64_t rows = row_count(a.x), c = a.x.cols;
  const Folded f = fold(rows, c, is_dense(a.x) && is_dense(a.y) && is_dense(a.dy) && is_dense(a.dx) && is_dense(a.dresidual));
  const auto gradient = [&](std::int64_t r, std::int64_t column, std::int64_t n) {
    V g = load_lanes<I>(folded_row<T>(a.dy, f, r) + column, n);
    if (a.relu) g = V::select(load_lanes<I>(folded_row<T>(a.y, f, r) + column, n).raw > 0.0F, g, V(0.0F));
    return g;
  };
  column_sums<I, 2>(f, c, a.scratch, {a.dbeta, a.dgamma}, 1.0, [&](std::int64_t first, std::int64_t count) {
    Strip mean, rstd;
    mean.fill(first, count, c, [&](std::int64_t i) { return a.mean[i]; });
    rstd.fill(first, count, c, [&](std::int64_t i) { return rstd_of(a.variance[i], a.eps); });
    return [&, mean, rstd](std::int64_t r, std::int64_t column, std::int64_t i, std::int64_t n, V* term) {
      term[0] = gradient(r, column, n);
      const V xhat = (load_lanes<I>(folded_row<T>(a.x, f, r) + column, n) - V::load(mean.at + i)) * V::load(rstd.at + i);
      term[1] = term[0] * xhat;
    };
  });
  if (a.dx.data == nullptr && a.dresidual.data == nullptr) return;
  const float inverse = rows > 0 ? 1.0F / static_cast<float>(rows) : 0.0F;
  parallel_for(f.rows, kRowsPerTask, [&](std::int64_t begin, std::int64_t end) {
    for_strips(f.cols, [&](std::int64_t first, std::int64_t count) {
      Strip mean, rstd, scale, offset, slope;  // dx = scale (g - offset - slope xhat)
      mean.fill(first, count, c, [&](std::int64_t i) { return a.mean[i]; });
      rstd.fill(first, count, c, [&](std::int64_t i) { return rstd_of(a.variance[i], a.eps); });
      scale.fill(first, count, c, [&](std::int64_t i) { return a.gamma[i] * rstd_of(a.variance[i], a.eps); });
      offset.fill(first, count, c, [&](std::int64_t i) { return a.batch_statistics ? a.dbeta[i] * inverse : 0.0F; });
      slope.fill(first, count, c, [&](std::int64_t i) { return a.batch_statistics ? a.dgamma[i] * inverse : 0.0F; });
      for (std::int64_t r = begin; r < end; ++r) {
        for_lanes<I>(count, [&](std::int64_t i, std::int64_t n) {
          const std::int64_t column = first + i;
          const V g = gradient(r, column, n);
          if (a.dresidual.data != nullptr) store_lanes<I>(g, folded_row<T>(a.dresidual, f, r) + column, n);
          if (a.dx.data == nullptr) return;
          const V xhat = (load_lanes<I>(folded_row<T>(a.x, f, r) + column, n) - V::load(mean.at + i)) * V::load(rstd.at + i);
          const V d = g - (V::load(offset.at + i) + xhat * V::load(slope.at + i));
          store_lanes<I>(d * V::load(scale.at + i), folded_row<T>(a.dx, f, r) + column, n);
        });
      }
    });
  });
}

}  // namespace

template <class I>
void kernel(I, const BatchNormStatistics& a) {
  visit_float(a.x.dtype, [&]<class T>(TypeTag<T>) { statistics<I, T>(a); });
}
template void kernel(TWINLENS_ISA, const BatchNormStatistics&);

template <class I>
void kernel(I, const BatchNormForward& a) {
  visit_float(a.x.dtype, [&]<class T>(TypeTag<T>) { forward<I, T>(a); });
}
template void kernel(TWINLENS_ISA, const BatchNormForward&);

template <class I>
void kernel(I, const BatchNormBackward& a) {
  visit_float(a.x.dtype, [&]<class T>(TypeTag<T>) { backward<I, T>(a); });
}
template void kernel(TWINLENS_ISA, const BatchNormBackward&);

}  // namespace twinlens
