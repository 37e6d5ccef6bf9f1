#include "twinlens/kernels/bias_gradient.h"

#include "kernels/cpu/vec/activation.h"
#include "kernels/cpu/vec/gradient.h"

#include "twinlens/kernels/parallel.h"

namespace twinlens {
namespace {

// Columns are taken in runs that stay in L1: what is not all of one type goes through floats there, so that each conversion and each
// activation is compiled once and not in all combinations.
constexpr std::int64_t kRun = 512;

// Runs of a row are too short for the processor to guess where the next one lies.
constexpr std::int64_t kRowsAhead = 4;
template <bool Write, class R>
TWINLENS_INLINE void ask_for_run(const R& x, std::int64_t row, std::int64_t col, std::int64_t cols) {
  if (x.data == nullptr) return;
  const std::int64_t size = size_of(x.dtype);
  const auto* run = static_cast<const char*>(static_cast<const void*>(x.data)) + (row * x.stride + col) * size;
  for (std::int64_t i = 0; i < cols * size; i += 64) __builtin_prefetch(run + i, Write, 2);
}

template <class I>
void read_run(const ConstRows& x, std::int64_t row, std::int64_t col, std::int64_t cols, float* out) {
  visit_float(x.dtype, [&]<class T>(TypeTag<T>) {
    const T* from = x.row<T>(row) + col;
    for_lanes<I>(cols, [&](std::int64_t i, std::int64_t n) { load_lanes<I>(from + i, n).store(out + i); });
  });
}

template <class I>
void write_run(const float* in, const Rows& x, std::int64_t row, std::int64_t col, std::int64_t cols) {
  visit_float(x.dtype, [&]<class T>(TypeTag<T>) {
    T* to = x.row<T>(row) + col;
    for_lanes<I>(cols, [&](std::int64_t i, std::int64_t n) { store_lanes<I>(Vec<I>::load(in + i), to + i, n); });
  });
}

// Whole registers of a run that lies in memory as Stored: dpre = dy * slope(pre), of a pre that is stored as T, and chain += it. dpre may
// be dy; it and chain may be null.
template <class I, class T, class Stored>
void gradient_of_run(Activation activation, const Stored* dy, const Stored* pre, Stored* dpre, std::int64_t cols, float* chain) {
  along_registers<I, T>(activation, cols, [&]<class S, class F>(TypeTag<S>, TypeTag<F>, std::int64_t i) {
    Vec<S> d = Vec<S>::load(dy + i);
    if constexpr (!__is_same(F, NoActivation)) d = times_slope<S, F>(d, Vec<S>::load(pre + i));
    if (dpre != nullptr) d.store(dpre + i);
    if (chain != nullptr) (Vec<S>::load(chain + i) + d).store(chain + i);
  });
}

// Sums are taken in chains, so that a long one rounds less; the chains are added by a fixed tree.
constexpr std::int64_t kChains = 4;
template <class I>
TWINLENS_INLINE Vec<I> joined(const Vec<I> (&sum)[kChains]) {
  return (sum[0] + sum[1]) + (sum[2] + sum[3]);
}

// Rows [begin, end) of dpre, summed into `sums` (null when nobody wants the bias gradient).
template <class I>
void rows_of_gradient(const BiasGradient& a, std::int64_t begin, std::int64_t end, float* sums) {
  using V = Vec<I>;
  const bool has_pre = a.activation != Activation::none, has_dpre = a.dpre.data != nullptr;
  const bool one_type = (!has_pre || a.pre.dtype == a.dy.dtype) && (!has_dpre || a.dpre.dtype == a.dy.dtype);
  alignas(64) float d[kRun], pre[kRun], chains[kChains][kRun];
  for (std::int64_t col = 0; col < a.dy.cols; col += kRun) {
    const std::int64_t cols = a.dy.cols - col < kRun ? a.dy.cols - col : kRun;
    const std::int64_t padded = (cols + V::kWidth - 1) / V::kWidth * V::kWidth;
    if (sums != nullptr) std::memset(chains, 0, sizeof(chains));
    for (std::int64_t r = begin; r < end; ++r) {
      if (r + kRowsAhead < end) {
        ask_for_run<false>(a.dy, r + kRowsAhead, col, cols);
        if (has_pre) ask_for_run<false>(a.pre, r + kRowsAhead, col, cols);
        ask_for_run<true>(a.dpre, r + kRowsAhead, col, cols);
      }
      float* const chain = sums != nullptr ? chains[(r - begin) % kChains] : nullptr;
      visit_float(has_pre ? a.pre.dtype : a.dy.dtype, [&]<class T>(TypeTag<T>) {
        if (one_type && padded == cols) {
          return gradient_of_run<I, T>(a.activation, a.dy.row<T>(r) + col, has_pre ? a.pre.row<T>(r) + col : nullptr,
                                       has_dpre ? a.dpre.row<T>(r) + col : nullptr, cols, chain);
        }
        read_run<I>(a.dy, r, col, cols, d);
        if (has_pre) read_run<I>(a.pre, r, col, cols, pre);
        gradient_of_run<I, T>(a.activation, d, pre, d, padded, chain);
        if (has_dpre) write_run<I>(d, a.dpre, r, col, cols);
      });
    }
    if (sums == nullptr) continue;
    for_lanes<I>(cols, [&](std::int64_t i, std::int64_t n) {
      V sum[kChains];
      for (std::int64_t k = 0; k < kChains; ++k) sum[k] = V::load(chains[k] + i);
      store_lanes<I>(joined<I>(sum), sums + col + i, n);
    });
  }
}

// dbias = sum over blocks.
template <class I>
void sum_blocks(const BiasGradient& a, std::int64_t blocks) {
  const std::int64_t c = a.dy.cols;
  parallel_for(c, 256, [&](std::int64_t begin, std::int64_t end) {
    for_lanes<I>(end - begin, [&](std::int64_t i, std::int64_t n) {
      Vec<I> chains[kChains] = {Vec<I>(0.0F), Vec<I>(0.0F), Vec<I>(0.0F), Vec<I>(0.0F)};
      for (std::int64_t b = 0; b < blocks; ++b) chains[b % kChains] += load_lanes<I>(a.scratch + b * c + begin + i, n);
      Vec<I> sum = joined<I>(chains);
      if (a.accumulate) sum += load_lanes<I>(a.dbias + begin + i, n);
      store_lanes<I>(sum, a.dbias + begin + i, n);
    });
  });
}

}  // namespace

template <class I>
void kernel(I, const BiasGradient& a) {
  const std::int64_t c = a.dy.cols, rows = row_count(a.dy);
  parallel_for(rows, BiasGradient::kRowsPerBlock, [&](std::int64_t begin, std::int64_t end) {
    float* sums = a.dbias == nullptr ? nullptr : a.scratch + begin / BiasGradient::kRowsPerBlock * c;
    rows_of_gradient<I>(a, begin, end, sums);
  });
  if (a.dbias != nullptr) sum_blocks<I>(a, (rows + BiasGradient::kRowsPerBlock - 1) / BiasGradient::kRowsPerBlock);
}
template void kernel(TWINLENS_ISA, const BiasGradient&);

}  // namespace twinlens
