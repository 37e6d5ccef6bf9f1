#pragma once
// Elementary functions on Vec<Isa>, in f32. Errors are against the correctly rounded result, measured by tests/kernels/vec_math.cpp.

#if defined(__AVX512F__)
#include "kernels/cpu/vec/gelu_tables.h"
#endif
#include "kernels/cpu/vec/vec.h"

namespace twinlens {

template <class I>
struct Math {
  using V = Vec<I>;
  using Int = typename V::Int;

  static constexpr float kLowest = -87.33654F;                 // e^x is a normal number from here on
  static constexpr float kInverseRoot = 0.39894228040143268F;  // 1 / sqrt(2 pi)

  // e^x. Range reduction by n = round(x / ln 2) with a two-part ln 2 (Cephes expf), then a polynomial of degree 6 that is minimax in
  // relative error for |r| <= 0.3467 (fitted by Lawson's iteration of weighted least squares); tables.h with AVX-512. <= 1.25 ulp;
  // underflows to 0 below -87.3 (no subnormal results), overflows to infinity above 88.7; NaN stays NaN.
  TWINLENS_INLINE static V exp(V x) {
#if defined(__AVX512F__)
    if constexpr (V::kWidth == 16) return Tables<I>::exp(V::min(x, V(89.0F))).scaled(from_lowest(x));
#endif
    const V limited = V::min(V::max(x, V(-88.0F)), V(89.0F));
    V shifted, n;
    const V p = reduced_exp(limited, shifted, n);
    // 2^n in two factors, so that n = 128 (just below overflow) and n = -127 are reached
    const Int ni = V::whole(n);
    const Int half = ni >> 1;
    const V scaled = p * V::bits((half + 127) << 23) * V::bits((ni - half + 127) << 23);
    V result = V::select(x.raw < kLowest, V(0.0F), scaled);
    result = V::select(x.raw > 88.72283F, V(__builtin_inff()), result);
    return V::select(x.raw != x.raw, x, result);
  }

  // e^x for kLowest <= x <= 88, whose power of two is one normal factor, in two thirds of the operations. <= 1.25 ulp; NaN stays NaN.
  TWINLENS_INLINE static V exp_moderate(V x) {
#if defined(__AVX512F__)
    if constexpr (V::kWidth == 16) return Tables<I>::exp(x).scaled(0xffff);
#endif
    V shifted, n;
    const V p = reduced_exp(x, shifted, n);
    return p * V::bits(((Int)shifted.raw + 127) << 23);  // (a product, so that NaN stays)
  }

  // The same for x <= 0, the exponentials of a softmax. 0 below -87.3.
  TWINLENS_INLINE static V exp_nonpositive(V x) {
#if defined(__AVX512F__)
    if constexpr (V::kWidth == 16) return Tables<I>::exp(x).scaled(from_lowest(x));
#endif
    return V::select(x.raw < kLowest, V(0.0F), exp_moderate(V::max(x, V(kLowest))));
  }

  // ln x for x >= 0 (Cephes logf); -inf at 0, NaN below. <= 1 ulp for normal x.
  TWINLENS_INLINE static V log(V x) {
    const V tiny = V(1.17549435e-38F);
    const V safe = V::max(x, tiny);
    const Int u = (Int)safe.raw;
    Int e = (u >> 23) - 126;
    V m = V::bits((u & 0x007FFFFF) | 0x3F000000);  // [0.5, 1)
    const Int small = m.raw < 0.707106781186547524F;
    e = e + small;  // small is -1 where true
    m = m + V::select(small, m, V(0.0F)) - V(1.0F);
    const V z = m * m;
    V p = V(7.0376836292e-2F);
    p = V::fma(p, m, V(-1.1514610310e-1F));
    p = V::fma(p, m, V(1.1676998740e-1F));
    p = V::fma(p, m, V(-1.2420140846e-1F));
    p = V::fma(p, m, V(1.4249322787e-1F));
    p = V::fma(p, m, V(-1.6668057665e-1F));
    p = V::fma(p, m, V(2.0000714765e-1F));
    p = V::fma(p, m, V(-2.4999993993e-1F));
    p = V::fma(p, m, V(3.3333331174e-1F));
    const V ef = V::number(e);
    V r = p * m * z;
    r = V::fma(ef, V(-2.12194440e-4F), r);
    r = V::fma(z, V(-0.5F), r);
    r = m + r;
    r = V::fma(ef, V(0.693359375F), r);
    r = V::select(x.raw == 0.0F, V(-__builtin_inff()), r);
    r = V::select(x.raw == __builtin_inff(), x, r);
    return V::select((x.raw < 0.0F) | (x.raw != x.raw), V(__builtin_nanf("")), r);
  }

  // <= 4 ulp for x >= -87.3; 0 below.
  TWINLENS_INLINE static V sigmoid(V x) {
    return V::select(x.raw < kLowest, V(0.0F), V(1.0F) / (V(1.0F) + exp_moderate(V::min(V::max(-x, V(kLowest)), V(88.0F)))));
  }

  // sigmoid(x) and what it leaves of 1, which is sigmoid(-x) without cancellation, by one exponential and one division. Each <= 6 ulp where
  // it is above e^-87, and 0 below: 0 times a large x is what slopes need there.
  struct Sigmoid {
    V value, rest;
  };
  TWINLENS_INLINE static Sigmoid sigmoid_and_rest(V x) {
    const V e = exp_moderate(V::min(V::max(-x, V(kLowest)), V(88.0F))), value = V(1.0F) / (V(1.0F) + e);
    return {V::select(x.raw < kLowest, V(0.0F), value), V::select(x.raw > -kLowest, V(0.0F), e * value)};
  }

  // x sigmoid(kx), and its slope. k > 0
  TWINLENS_INLINE static V gated(V x, float k) { return x * sigmoid(V(k) * x); }
  TWINLENS_INLINE static V gated_slope(V x, float k) {
    const auto [s, rest] = sigmoid_and_rest(V(k) * x);
    return V::fma(x, V(k) * (s * rest), s);  // x last: k x is infinite before x is
  }

  // (1 - e^-2|x|) / (1 + e^-2|x|) with the sign of x, and a polynomial near 0 where that form cancels. <= 2 ulp.
  TWINLENS_INLINE static V tanh(V x) {
    const V a = V::abs(x);
    const V e = exp(a * V(-2.0F));
    const V big = (V(1.0F) - e) / (V(1.0F) + e);
    const V z = x * x;
    V p = V(-5.70498872745e-3F);
    p = V::fma(p, z, V(2.06390887954e-2F));
    p = V::fma(p, z, V(-5.37397155531e-2F));
    p = V::fma(p, z, V(1.33314422036e-1F));
    p = V::fma(p, z, V(-3.33332819422e-1F));
    const V small = V::fma(p * z, x, x);
    const V signed_big = V::bits((Int)big.raw | ((Int)x.raw & (Int)V(-0.0F).raw));
    return V::select(a.raw < 0.625F, small, signed_big);
  }

  // log(1 + x) for x >= 0, accurate for small x: log(u) * x / (u - 1) with u = 1 + x corrects the rounding of u (Kahan). <= 3 ulp.
  TWINLENS_INLINE static V log1p(V x) {
    const V u = x + V(1.0F);
    const V d = u - V(1.0F);
    const V corrected = log(u) * (x / d);  // the quotient is near 1: no product overflows
    return V::select((d.raw == 0.0F) | (x.raw == __builtin_inff()), x, corrected);
  }

  // log(1 + e^-|x|), accurate for large |x| too. <= 4 ulp for |x| <= 87.3; 0 beyond.
  TWINLENS_INLINE static V log1p_exp_neg_abs(V x) { return log1p(exp(-V::abs(x))); }

  // The normal distribution at x: density phi(x) and tail Q(|x|) = P(Z > |x|) = phi(x) m(|x|), where m, Mills' ratio, is w P(w) with
  // w = 1 / (1 + |x| / 4); p is P / sqrt(2 pi). The tail is accurate relative to itself, which 1 - erf is not. <= 8 ulp; both are 0 beyond
  // |x| = 13.2.
  struct Normal {
    V density, tail;
  };
  TWINLENS_INLINE static Normal normal(V x) {
    const V t = V::min(V::abs(x), V(20.0F));
#if defined(__AVX512F__)
    if constexpr (V::kWidth == 16) {
      const V square = t * t, bell = Tables<I>::bell(t, square).scaled(up_to(square, -2.0F * kLowest));
      return {bell * V(kInverseRoot), bell * Tables<I>::mills(t)};
    }
#endif
    // What rounding took from the square is made up for to first order, so that large t lose nothing in the exponent.
    const V square = t * t, bell = exp_nonpositive(square * V(-0.5F));
    const V exact = V::fma(bell, V::residual(t, t, square) * V(-0.5F), bell);
    const V w = V(1.0F) / V::fma(t, V(0.25F), V(1.0F));
    V p = V(1.6088316e-02F);
    p = V::fma(p, w, V(-6.0035292e-02F));
    p = V::fma(p, w, V(4.493156e-02F));
    p = V::fma(p, w, V(3.776363e-02F));
    p = V::fma(p, w, V(4.602955e-03F));
    p = V::fma(p, w, V(9.122809e-02F));
    p = V::fma(p, w, V(7.03311e-02F));
    p = V::fma(p, w, V(9.589527e-02F));
    p = V::fma(p, w, V(9.944377e-02F));
    p = V::fma(p, w, V(9.97506e-02F));
    return {exact * V(kInverseRoot), exact * p * w};
  }

  // What GELU takes from relu, t Q(t), and its slope from the step, Q(t) - t phi(t), for t = |x|. 0 beyond 13.2.
  TWINLENS_INLINE static V gelu_loss(V t) {
#if defined(__AVX512F__)
    if constexpr (V::kWidth == 16) return near_or_far<any_gelu_loss>(t, GeluTables<I>::loss(t));
#endif
    return any_gelu_loss(t);
  }
  TWINLENS_INLINE static V gelu_slope_loss(V t) {
#if defined(__AVX512F__)
    if constexpr (V::kWidth == 16) return near_or_far<any_gelu_slope_loss>(t, GeluTables<I>::slope_loss(t));
#endif
    return any_gelu_slope_loss(t);
  }

 protected:
  // For any t. (What is multiplied by the tail is limited, where that is 0: infinity times it is not wanted.)
  TWINLENS_INLINE static V any_gelu_loss(V t) { return V::min(t, V(20.0F)) * normal(t).tail; }
  TWINLENS_INLINE static V any_gelu_slope_loss(V t) {
    const auto [density, tail] = normal(t);
    return V::fma(V::min(t, V(20.0F)), -density, tail);
  }

  // p of e^x as 2^n p. The low bits of `shifted` hold n as an integer.
  TWINLENS_INLINE static V reduced_exp(V x, V& shifted, V& n) {
    shifted = V::fma(x, V(1.44269504088896341F), V(12582912.0F));  // 1.5 * 2^23: rounds to an integer
    n = shifted - V(12582912.0F);
    V r = V::fma(n, V(-0.693359375F), x);
    r = V::fma(n, V(2.12194440e-4F), r);
    V p = V(1.3814581e-03F);
    p = V::fma(p, r, V(8.368726e-03F));
    p = V::fma(p, r, V(4.166839e-02F));
    p = V::fma(p, r, V(1.6666521e-01F));
    p = V::fma(p, r, V(4.9999994e-01F));
    p = V::fma(p, r, V(1.0F));
    return V::fma(p, r, V(1.0F));
  }
#if defined(__AVX512F__)
  // `near`, but by lane what F, which is for any t, says where the tables do not reach. Few registers have such lanes.
  template <V (*F)(V)>
  TWINLENS_INLINE static V near_or_far(V t, V near) {
    const __mmask16 is_near = _mm512_cmp_ps_mask((__m512)t.raw, (__m512)V(GeluTables<I>::kEnd).raw, _CMP_LT_OQ);
    if (is_near == 0xFFFF) [[likely]]
      return near;
    return (typename V::Raw)_mm512_mask_mov_ps((__m512)out_of_line<F>(t).raw, is_near, (__m512)near.raw);
  }
  template <V (*F)(V)>
  [[gnu::noinline]] static V out_of_line(V t) {
    return F(t);
  }
  TWINLENS_INLINE static __mmask16 from_lowest(V x) {  // (or NaN)
    return _mm512_cmp_ps_mask((__m512)x.raw, (__m512)V(kLowest).raw, _CMP_NLT_UQ);
  }
  TWINLENS_INLINE static __mmask16 up_to(V x, float most) {  // (or NaN)
    return _mm512_cmp_ps_mask((__m512)x.raw, (__m512)V(most).raw, _CMP_NGT_UQ);
  }
#endif
};

}  // namespace twinlens
