#pragma once
// Functions for results that are rounded to bf16, whose rounding is up to 2^-9 of them: within 2^-11 of the exact ones, for half of the
// operations. tests/kernels/bf16_functions.cpp looks at all arguments in bf16.

#include "kernels/cpu/vec/math.h"
#include "kernels/cpu/vec/several.h"

namespace twinlens {

#if defined(__AVX512F__)

template <class I>
struct RoughMath : Math<I> {
  using V = Vec<I>;
  using Exact = Math<I>;

  // e^x for x <= 0; 0 below -87.3.
  TWINLENS_INLINE static V exp_nonpositive(V x) { return Tables<I>::rough_exp(x).scaled(Exact::from_lowest(x)); }

  // (At 200 the exponential is infinite or 0, as it is beyond.)
  TWINLENS_INLINE static V sigmoid(V x) { return inverse(V(1.0F) + exp_negative(V::min(V::max(x, V(-200.0F)), V(200.0F)))); }

  TWINLENS_INLINE static V gated(V x, float k) {
    constexpr int smaller = 2;  // of the magnitudes, with the sign of the first; a number where one is NaN
    const V limited = (typename V::Raw)_mm512_maskz_range_ps(0xffff, (__m512)(V(k) * x).raw, (__m512)V(200.0F).raw, smaller);
    return x * inverse(V(1.0F) + exp_negative(limited));
  }
  // From k x within what has an exponential: the slope is 0 or 1 beyond.
  TWINLENS_INLINE static V gated_slope(V x, float k) {
    const V limited = V::min(V::max(V(k) * x, V(-88.0F)), V(88.0F)), e = exp_negative(limited), s = inverse(V(1.0F) + e);
    return V::fma(limited, s * (e * s), s);
  }

  TWINLENS_INLINE static V gelu_loss(V t) { return Exact::template near_or_far<Exact::any_gelu_loss>(t, GeluTables<I>::rough_loss(t)); }
  TWINLENS_INLINE static V gelu_slope_loss(V t) {
    return Exact::template near_or_far<Exact::any_gelu_slope_loss>(t, GeluTables<I>::rough_slope_loss(t));
  }

 private:
  TWINLENS_INLINE static V exp_negative(V x) { return Tables<I>::rough_exp(-x).scaled(0xffff); }
  TWINLENS_INLINE static V inverse(V x) { return (typename V::Raw)_mm512_maskz_rcp14_ps(0xffff, (__m512)x.raw); }
};

#endif

// The functions for what is stored as T and taken as registers of S; of two at a time they are for one.
template <class S, class T>
struct PickMath {
  using M = Math<S>;
};
#if defined(__AVX512F__)
template <class I>
requires(I::kWidth == 16) struct PickMath<I, bf16> {
  using M = RoughMath<I>;
};
template <class I>
struct PickMath<Several<I, 2>, bf16> {
  using M = RoughMath<I>;
};
#endif
template <class S, class T>
using MathFor = typename PickMath<S, T>::M;

}  // namespace twinlens
