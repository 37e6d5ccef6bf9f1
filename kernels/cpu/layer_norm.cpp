#include "twinlens/kernels/layer_norm.h"

#include "kernels/cpu/vec/past_caches.h"
#include "kernels/cpu/vec/several.h"
#include "kernels/cpu/vec/vec.h"

#include "twinlens/kernels/parallel.h"

namespace twinlens {
namespace {

// The sum of f(set, column, lanes) along a row of X, by registers of pairs where it has them.
template <class I, class X, class F>
TWINLENS_INLINE Vec<I> sum_along(std::int64_t c, F&& f) {
  using J = typename AlongRow<I, X>::Set;
  if constexpr (__is_same(I, J)) {
    return sum_lanes<I>(
        c, [&](std::int64_t i, std::int64_t n) __attribute__((always_inline)) { return f(TypeTag<I>{}, i, n); });
  } else {
    constexpr std::int64_t w = J::kWidth;
    Vec<J> even(0.0F), odd(0.0F);
    std::int64_t i = 0;
    for (; i + 2 * w <= c; i += 2 * w) {
      even += f(TypeTag<J>{}, i, w);
      odd += f(TypeTag<J>{}, i + w, w);
    }
    const Vec<I> rest = sum_lanes<I>(c - i, [&](std::int64_t k, std::int64_t n) { return f(TypeTag<I>{}, i + k, n); });
    return (even + odd).added() + rest;
  }
}

// Rows from begin to end. A row is summed while the one before it is written, so that memory is read as evenly as it is written and the sum
// does not hold up what comes next. kAffine: gamma and beta are both there, which costs no question then.
template <class I, class X, class Y, bool kAffine>
TWINLENS_INLINE void forward_rows(const LayerNormForward& a, const RowOutput& out, std::int64_t begin, std::int64_t end) {
  using V = Vec<I>;
  const std::int64_t c = a.x.cols;
  const float *gamma = a.gamma, *beta = a.beta;
  const X* x = a.x.row<X>(begin);
  V sum = sum_along<I, X>(
      c, [&]<class S>(TypeTag<S>, std::int64_t i, std::int64_t n) __attribute__((always_inline)) { return load_lanes<S>(x + i, n); });
  for (std::int64_t r = begin; r < end; ++r) {
    const std::int64_t next = r + 1 < end ? r + 1 : r;
    const X* x_next = a.x.row<X>(next);
    Y *y = a.y.row<Y>(r), *y_ahead = a.y.row<Y>(next);
    const float mean = sum.sum() / static_cast<float>(c);
    // Two passes: the one-pass form (mean of squares minus square of mean) cancels.
    const V squares = sum_along<I, X>(
        c, [&]<class S>(TypeTag<S>, std::int64_t i, std::int64_t n) __attribute__((always_inline)) {
          out.ask_all<S>(y_ahead + i);
          const Vec<S> d = load_lanes<S>(x + i, n, mean) - Vec<S>(mean);
          return d * d;
        });
    const float rstd = 1.0F / __builtin_sqrtf(squares.sum() / static_cast<float>(c) + a.eps);
    const auto normalized = [&](std::int64_t i, std::int64_t n) __attribute__((always_inline)) {
      const V v = (load_lanes<I>(x + i, n) - V(mean)) * V(rstd);
      if constexpr (kAffine) return V::fma(v, load_lanes<I>(gamma + i, n), load_lanes<I>(beta + i, n));
      if (gamma != nullptr) return V::fma(v, load_lanes<I>(gamma + i, n), beta != nullptr ? load_lanes<I>(beta + i, n) : V(0.0F));
      return beta != nullptr ? v + load_lanes<I>(beta + i, n) : v;
    };
    sum = sum_along<I, X>(
        c, [&]<class S>(TypeTag<S>, std::int64_t i, std::int64_t n) __attribute__((always_inline)) {
          if constexpr (__is_same(S, I)) {
            out.store<I>(normalized(i, n), y + i, n);
          } else {
            out.store_two<I>(normalized(i, I::kWidth), normalized(i + I::kWidth, I::kWidth), y + i);
          }
          return load_lanes<S>(x_next + i, n);
        });
    a.mean[r] = mean;
    a.rstd[r] = rstd;
    x = x_next;
  }
}

// dx of one row; adds the row's share to dgamma and dbeta (null when not wanted).
template <class I, class X, class D>
TWINLENS_INLINE void backward_row(const LayerNormBackward& a, const RowOutput& out, std::int64_t r, float* dgamma, float* dbeta) {
  using V = Vec<I>;
  const std::int64_t c = a.x.cols;
  const X* x = a.x.row<X>(r);
  const D* dy = a.dy.row<D>(r);
  const V mean(a.mean[r]), rstd(a.rstd[r]);

  V sum_g(0.0F), sum_gx(0.0F);
  for_lanes<I>(c, [&](std::int64_t i, std::int64_t n) {
    const V d = load_lanes<I>(dy + i, n);
    const V xhat = (load_lanes<I>(x + i, n) - mean) * rstd;
    const V g = a.gamma != nullptr ? d * load_lanes<I>(a.gamma + i, n) : d;
    sum_g += g;
    sum_gx = V::fma(g, xhat, sum_gx);
    if (dgamma != nullptr) store_lanes<I>(V::fma(d, xhat, load_lanes<I>(dgamma + i, n)), dgamma + i, n);
    if (dbeta != nullptr) store_lanes<I>(d + load_lanes<I>(dbeta + i, n), dbeta + i, n);
  });
  if (a.dx.data == nullptr) return;
  const V mean_g(sum_g.sum() / static_cast<float>(c)), mean_gx(sum_gx.sum() / static_cast<float>(c));
  X* dx = a.dx.row<X>(r);
  for_lanes<I>(c, [&](std::int64_t i, std::int64_t n) {
    const V d = load_lanes<I>(dy + i, n);
    const V xhat = (load_lanes<I>(x + i, n) - mean) * rstd;
    const V g = a.gamma != nullptr ? d * load_lanes<I>(a.gamma + i, n) : d;
    out.store<I>((g - mean_g - xhat * mean_gx) * rstd, dx + i, n);
  });
}

// out[c] = sum over blocks of parts[block][c], in order.
template <class I>
TWINLENS_INLINE void sum_blocks(const float* parts, std::int64_t blocks, std::int64_t c, float* out) {
  parallel_for(c, 256, [&](std::int64_t begin, std::int64_t end) {
    for_lanes<I>(end - begin, [&](std::int64_t i, std::int64_t n) {
      Vec<I> sum(0.0F);
      for (std::int64_t b = 0; b < blocks; ++b) sum += load_lanes<I>(parts + b * c + begin + i, n);
      store_lanes<I>(sum, out + begin + i, n);
    });
  });
}

}  // namespace

template <class I>
void kernel(I, const LayerNormForward& a) {
  const RowOutput out{goes_past_caches(a.y, a.x)};
  visit_float(a.x.dtype, [&]<class X>(TypeTag<X>) {
    visit_float(a.y.dtype, [&]<class Y>(TypeTag<Y>) {
      parallel_for(row_count(a.x), row_grain(row_count(a.x), a.x.cols), [&](std::int64_t begin, std::int64_t end) {
        if (a.gamma != nullptr && a.beta != nullptr) {
          forward_rows<I, X, Y, true>(a, out, begin, end);
        } else {
          forward_rows<I, X, Y, false>(a, out, begin, end);
        }
        out.end();
      });
    });
  });
}
template void kernel(TWINLENS_ISA, const LayerNormForward&);

template <class I>
void kernel(I, const LayerNormBackward& a) {
  const std::int64_t c = a.x.cols, rows = row_count(a.x);
  const std::int64_t blocks = (rows + LayerNormBackward::kRowsPerBlock - 1) / LayerNormBackward::kRowsPerBlock;
  const bool wants_parameters = a.dgamma != nullptr || a.dbeta != nullptr;
  float* gamma_parts = a.scratch;
  float* beta_parts = wants_parameters ? a.scratch + blocks * c : nullptr;
  const RowOutput out{goes_past_caches(a.dx, a.x, a.dy)};
  visit_float(a.x.dtype, [&]<class X>(TypeTag<X>) {
    visit_float(a.dy.dtype, [&]<class D>(TypeTag<D>) {
      parallel_for(rows, LayerNormBackward::kRowsPerBlock, [&](std::int64_t begin, std::int64_t end) {
        const std::int64_t block = begin / LayerNormBackward::kRowsPerBlock;
        float* dgamma = a.dgamma != nullptr ? gamma_parts + block * c : nullptr;
        float* dbeta = a.dbeta != nullptr ? beta_parts + block * c : nullptr;
        if (dgamma != nullptr) std::memset(dgamma, 0, static_cast<std::size_t>(c) * sizeof(float));
        if (dbeta != nullptr) std::memset(dbeta, 0, static_cast<std::size_t>(c) * sizeof(float));
        for (std::int64_t r = begin; r < end; ++r) backward_row<I, X, D>(a, out, r, dgamma, dbeta);
        out.end();
      });
    });
  });
  if (a.dgamma != nullptr) sum_blocks<I>(gamma_parts, blocks, c, a.dgamma);
  if (a.dbeta != nullptr) sum_blocks<I>(beta_parts, blocks, c, a.dbeta);
}
template void kernel(TWINLENS_ISA, const LayerNormBackward&);

}  // namespace twinlens
