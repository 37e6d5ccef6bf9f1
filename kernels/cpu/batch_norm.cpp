#include "twinlens/kernels/batch_norm.h"

#include "kernels/cpu/vec/past_caches.h"
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

// Calls f(registers as a constant, first column, columns) for all `count` of them: whole registers `Group` at a time, so that a visit of a
// row takes lines that lie side by side, then one by one.
template <class I, int Group, class F>
TWINLENS_INLINE void for_register_groups(std::int64_t count, F&& f) {
  constexpr std::int64_t kColumns = Group * Vec<I>::kWidth;
  std::int64_t i = 0;
  for (; i + kColumns <= count; i += kColumns) f(std::integral_constant<int, Group>{}, i, kColumns);
  for (; i < count; i += Vec<I>::kWidth) {
    f(std::integral_constant<int, 1>{}, i, count - i < Vec<I>::kWidth ? count - i : Vec<I>::kWidth);
  }
}

// Strided rows: no hardware prefetcher follows.
constexpr std::int64_t kNormRowsAhead = 8;
template <class T>
TWINLENS_INLINE void ask_for(const T* p, std::int64_t n) {
  for (std::int64_t i = 0; i < n; i += 64 / static_cast<std::int64_t>(sizeof(T))) __builtin_prefetch(p + i, 0, 3);
}

// sum[register][s] = what terms(row, register, term) gives, added over rows [begin, end) in two chains.
template <class I, int Registers, int Sums, class Terms>
TWINLENS_INLINE void add_rows(std::int64_t begin, std::int64_t end, Vec<I> (&sum)[Registers][Sums], Terms&& terms) {
  using V = Vec<I>;
  V chains[2][Registers][Sums];
  for (auto& chain : chains) {
    for (auto& of_register : chain) {
      for (V& v : of_register) v = V(0.0F);
    }
  }
  const auto add = [&](int chain, std::int64_t r) {
    for (int k = 0; k < Registers; ++k) {
      V term[Sums];
      terms(r, k, term);
      for (int s = 0; s < Sums; ++s) chains[chain][k][s] += term[s];
    }
  };
  std::int64_t r = begin;
  for (; r + 1 < end; r += 2) {
    add(0, r);
    add(1, r + 1);
  }
  if (r < end) add(0, r);
  for (int k = 0; k < Registers; ++k) {
    for (int s = 0; s < Sums; ++s) sum[k][s] = chains[0][k][s] + chains[1][k][s];
  }
}

// sum[c] += term(place, block, c) for the parts of channel begin + c, over blocks and folds in order; in double, since statistics go into
// every value behind them.
constexpr std::int64_t kJoined = 64;
template <class Term>
TWINLENS_INLINE void join_blocks(const Folded& f, std::int64_t channels, std::int64_t begin, std::int64_t end, double (&sum)[kJoined],
                                 Term term) {
  const std::int64_t blocks = (f.rows + kBlock - 1) / kBlock;
  for (std::int64_t block = 0; block < blocks; ++block) {
    for (std::int64_t t = 0; t < f.times; ++t) {
      const std::int64_t at = block * f.cols + t * channels + begin;
      for (std::int64_t c = 0; c < end - begin; ++c) sum[c] += term(at + c, block, c);
    }
  }
}

// A block's rows are read from memory once: its sum, then the squares around its own mean while it lies in the cache. What a block's mean
// is away from that of all comes in when blocks are joined (Chan, Golub & LeVeque 1983, "Algorithms for computing the sample variance").
template <class I, class T>
TWINLENS_INLINE void statistics(const BatchNormStatistics& a) {
  using V = Vec<I>;
  const std::int64_t rows = row_count(a.x), channels = a.x.cols;
  const Folded f = fold(rows, channels, is_dense(a.x));
  const std::int64_t blocks = (f.rows + kBlock - 1) / kBlock;
  float *const sums = a.scratch, *const squares = a.scratch + blocks * f.cols;
  const auto rows_of = [&](std::int64_t block) { return block + 1 < blocks ? kBlock : f.rows - block * kBlock; };
  parallel_for(f.rows, kBlock, [&](std::int64_t begin, std::int64_t end) {
    const std::int64_t to = begin / kBlock * f.cols;
    const V inverse(1.0F / static_cast<float>(end - begin));
    for_register_groups<I, 4>(f.cols, [&]<int kRegisters>(std::integral_constant<int, kRegisters>, std::int64_t first, std::int64_t n) {
      const std::int64_t of_register = kRegisters == 1 ? n : V::kWidth;
      V sum[kRegisters][1], mean[kRegisters], square[kRegisters][1];
      add_rows<I>(begin, end, sum, [&](std::int64_t r, int k, V* term) {
        const T* x = folded_row<T>(a.x, f, r) + first;
        term[0] = load_lanes<I>(x + k * V::kWidth, of_register);
      });
      for (int k = 0; k < kRegisters; ++k) mean[k] = sum[k][0] * inverse;
      // Meanwhile what is summed next is asked for: the rows' next columns, or the next block.
      const std::int64_t rows_on = first + n < f.cols ? 0 : kBlock, columns_on = rows_on == 0 ? first + n : 0;
      add_rows<I>(begin, end, square, [&](std::int64_t r, int k, V* term) {
        if (k == 0 && r + rows_on < f.rows) ask_for(folded_row<T>(a.x, f, r + rows_on) + columns_on, n);
        const V away = load_lanes<I>(folded_row<T>(a.x, f, r) + first + k * V::kWidth, of_register) - mean[k];
        term[0] = away * away;
      });
      for (int k = 0; k < kRegisters; ++k) {
        store_lanes<I>(sum[k][0], sums + to + first + k * V::kWidth, of_register);
        store_lanes<I>(square[k][0], squares + to + first + k * V::kWidth, of_register);
      }
    });
  });
  const double factor = rows > 0 ? 1.0 / static_cast<double>(rows) : 0.0;
  parallel_for(channels, kJoined, [&](std::int64_t begin, std::int64_t end) {
    double mean[kJoined] = {}, square[kJoined] = {};
    join_blocks(f, channels, begin, end, mean, [&](std::int64_t at, std::int64_t, std::int64_t) { return static_cast<double>(sums[at]); });
    for (double& x : mean) x *= factor;
    join_blocks(f, channels, begin, end, square, [&](std::int64_t at, std::int64_t block, std::int64_t c) {
      const auto count = static_cast<double>(rows_of(block));
      const double away = static_cast<double>(sums[at]) / count - mean[c];
      return static_cast<double>(squares[at]) + count * away * away;
    });
    for (std::int64_t c = begin; c < end; ++c) {
      a.mean[c] = static_cast<float>(mean[c - begin]);
      a.variance[c] = static_cast<float>(square[c - begin] * factor);
    }
  });
}

template <class I, class T>
TWINLENS_INLINE void forward(const BatchNormForward& a) {
  using V = Vec<I>;
  const std::int64_t c = a.x.cols;
  const Folded f = fold(row_count(a.x), c, is_dense(a.x) && is_dense(a.y) && is_dense(a.residual));
  const RowOutput y_out{goes_past_caches(a.y, a.x, a.residual)};
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
          y_out.store(y, to + i, n);
        });
      }
    });
    y_out.end();
  });
}

// g and xhat of a strip's rows. Where the relu let through is seen from y, or, where there was no residual, from what y was made of.
template <class I, class T>
struct GradientOf {
  using V = Vec<I>;
  const BatchNormBackward& a;
  const Folded& f;
  Strip mean, rstd, gamma, beta;

  TWINLENS_INLINE GradientOf(const BatchNormBackward& args, const Folded& folded, std::int64_t first, std::int64_t count)
      : a(args), f(folded) {
    const std::int64_t c = a.x.cols;
    mean.fill(first, count, c, [&](std::int64_t i) { return a.mean[i]; });
    rstd.fill(first, count, c, [&](std::int64_t i) { return rstd_of(a.variance[i], a.eps); });
    if (!a.relu || a.y.data != nullptr) return;
    gamma.fill(first, count, c, [&](std::int64_t i) { return a.gamma[i]; });
    beta.fill(first, count, c, [&](std::int64_t i) { return a.beta[i]; });
  }
  TWINLENS_INLINE void ask(std::int64_t r, std::int64_t column, std::int64_t n) const {
    ask_for(folded_row<T>(a.dy, f, r) + column, n);
    ask_for(folded_row<T>(a.x, f, r) + column, n);
    if (a.relu && a.y.data != nullptr) ask_for(folded_row<T>(a.y, f, r) + column, n);
  }
  // Of n lanes from `column` on, which is place i of the strip.
  TWINLENS_INLINE void load(std::int64_t r, std::int64_t column, std::int64_t i, std::int64_t n, V& g, V& xhat) const {
    g = load_lanes<I>(folded_row<T>(a.dy, f, r) + column, n);
    xhat = (load_lanes<I>(folded_row<T>(a.x, f, r) + column, n) - V::load(mean.at + i)) * V::load(rstd.at + i);
    if (!a.relu) return;
    const V y = a.y.data != nullptr ? load_lanes<I>(folded_row<T>(a.y, f, r) + column, n)
                                    : V::fma(xhat, V::load(gamma.at + i), V::load(beta.at + i));
    g = V::select(y.raw > 0.0F, g, V(0.0F));
  }
};

template <class I, class T>
TWINLENS_INLINE void backward(const BatchNormBackward& a) {
  using V = Vec<I>;
  const std::int64_t rows = row_count(a.x), c = a.x.cols;
  const Folded f = fold(rows, c, is_dense(a.x) && is_dense(a.y) && is_dense(a.dy) && is_dense(a.dx) && is_dense(a.dresidual));
  const std::int64_t blocks = (f.rows + kBlock - 1) / kBlock, size = blocks * f.cols;
  parallel_for(f.rows, kBlock, [&](std::int64_t begin, std::int64_t end) {
    for_strips(f.cols, [&](std::int64_t strip, std::int64_t count) {
      const GradientOf<I, T> gradient(a, f, strip, count);
      for_register_groups<I, 2>(count, [&]<int kRegisters>(std::integral_constant<int, kRegisters>, std::int64_t i, std::int64_t n) {
        const std::int64_t of_register = kRegisters == 1 ? n : V::kWidth;
        V sum[kRegisters][2];
        add_rows<I>(begin, end, sum, [&](std::int64_t r, int k, V* term) {
          if (k == 0 && r + kNormRowsAhead < end) gradient.ask(r + kNormRowsAhead, strip + i, n);
          const std::int64_t at = i + k * V::kWidth;
          V xhat;
          gradient.load(r, strip + at, at, of_register, term[0], xhat);
          term[1] = term[0] * xhat;
        });
        float* to = a.scratch + begin / kBlock * f.cols + strip + i;
        for (int k = 0; k < kRegisters; ++k) {
          for (int s = 0; s < 2; ++s) store_lanes<I>(sum[k][s], to + s * size + k * V::kWidth, of_register);
        }
      });
    });
  });
  parallel_for(c, kJoined, [&](std::int64_t begin, std::int64_t end) {
    for (int s = 0; s < 2; ++s) {
      double sum[kJoined] = {};
      const float* parts = a.scratch + s * size;
      join_blocks(f, c, begin, end, sum, [&](std::int64_t at, std::int64_t, std::int64_t) { return static_cast<double>(parts[at]); });
      for (std::int64_t k = begin; k < end; ++k) (s == 0 ? a.dbeta : a.dgamma)[k] = static_cast<float>(sum[k - begin]);
    }
  });
  if (a.dx.data == nullptr && a.dresidual.data == nullptr) return;
  const RowOutput dx_out{a.dx.data != nullptr && goes_past_caches(a.dx, a.x, a.dy, a.y)};
  const float inverse = rows > 0 ? 1.0F / static_cast<float>(rows) : 0.0F;
  parallel_for(f.rows, kRowsPerTask, [&](std::int64_t begin, std::int64_t end) {
    for_strips(f.cols, [&](std::int64_t first, std::int64_t count) {
      const GradientOf<I, T> gradient(a, f, first, count);
      Strip scale, offset, slope;  // dx = scale (g - offset - slope xhat)
      scale.fill(first, count, c, [&](std::int64_t i) { return a.gamma[i] * rstd_of(a.variance[i], a.eps); });
      offset.fill(first, count, c, [&](std::int64_t i) { return a.batch_statistics ? a.dbeta[i] * inverse : 0.0F; });
      slope.fill(first, count, c, [&](std::int64_t i) { return a.batch_statistics ? a.dgamma[i] * inverse : 0.0F; });
      for (std::int64_t r = begin; r < end; ++r) {
        for_lanes<I>(count, [&](std::int64_t i, std::int64_t n) {
          const std::int64_t column = first + i;
          V g, xhat;
          gradient.load(r, column, i, n, g, xhat);
          if (a.dresidual.data != nullptr) store_lanes<I>(g, folded_row<T>(a.dresidual, f, r) + column, n);
          if (a.dx.data == nullptr) return;
          const V d = g - (V::load(offset.at + i) + xhat * V::load(slope.at + i));
          dx_out.store(d * V::load(scale.at + i), folded_row<T>(a.dx, f, r) + column, n);
        });
      }
    });
    dx_out.end();
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
