#pragma once
// Tables of 16 or 32 numbers, looked up in one or two registers, and what they make shorter: e^x and the tail of the normal distribution.
// tests/golden/make_math_tables.py makes the numbers.
//
// Only for files that are compiled with AVX-512.

#include "kernels/cpu/vec/vec.h"

namespace twinlens {

template <class I>
struct Tables {
  using V = Vec<I>;
  using Int = typename V::Int;
  using Raw = typename V::Raw;

  // table[the lowest four or five bits of i]
  TWINLENS_INLINE static V at(const float (&table)[16], Int i) {
    return (Raw)_mm512_maskz_permutexvar_ps(0xffff, (__m512i)i, (__m512)V::load(table).raw);  // (gcc 12 warns of the form without a mask)
  }
  TWINLENS_INLINE static V at(const float (&table)[32], Int i) {
    return (Raw)_mm512_permutex2var_ps((__m512)V::load(table).raw, (__m512i)i, (__m512)V::load(table + 16).raw);
  }

  // 2^floor(n) p. (n comes with its fraction: the scaling instruction floors it.)
  struct Power {
    V n, p;
    // Where a lane does not count, 0, whatever p is there.
    TWINLENS_INLINE V scaled(__mmask16 counts) const { return (Raw)_mm512_maskz_scalef_ps(counts, (__m512)p.raw, (__m512)n.raw); }
  };

  // e^x by n = x / ln 2 rounded to 1/16, a root of two from the table, and e^r - 1 for |r| <= ln 2 / 32. What rounding took from the root
  // is added there, so that p is as good as correctly rounded: <= 0.52 ulp. Beyond |x| = 1e4 p can be anything.
  TWINLENS_INLINE static Power exp(V x) {
    const V shifted = V::fma(x, V(kInverseLn2), V(kShift)), n = shifted - V(kShift);
    V r = V::fma(n, V(-kLn2High), x);
    r = V::fma(n, V(-kLn2Low), r);
    return power(shifted, n, r, V(kFirst), V(kSecond), V(kThird));
  }

  // e^x from the nearest sixteenth of an octave and one term of the series beside it: 1.2e-4 of itself off at most.
  TWINLENS_INLINE static Power rough_exp(V x) {
    const V shifted = V::fma(x, V(kInverseLn2), V(kShift)), n = shifted - V(kShift);
    const V root = at(kRaisedRoots, (Int)shifted.raw);
    return {n, V::fma(root, V::fma(n, V(-kLn2), x), root)};
  }

  // e^(-t^2 / 2) for 0 <= t <= 100. What rounding takes from the square is made up for, so that large t lose nothing in the exponent.
  TWINLENS_INLINE static Power bell(V t, V square) {
    const V shifted = V::fma(square, V(-0.5F * kInverseLn2), V(kShift)), n = shifted - V(kShift);
    const V d = V::fma(n, V(2.0F * kLn2High), square) + V::fma(n, V(2.0F * kLn2Low), V::residual(t, t, square));  // -2 r
    return power(shifted, n, d, V(-0.5F * kFirst), V(0.25F * kSecond), V(-0.125F * kThird));
  }

  // Mills' ratio / sqrt(2 pi) = Q(t) e^(t^2 / 2), 0 <= t < 15: polynomials in eighths of the octaves of 1 + t.
  TWINLENS_INLINE static V mills(V t) {
    const V v = t + V(1.0F);
    const Int eighth = (Int)v.raw >> 20;
    const V s = v - V::bits(eighth << 20);
    V p = V::fma(at(kMills4, eighth), s, at(kMills3, eighth));
    p = V::fma(p, s, at(kMills2, eighth));
    p = V::fma(p, s, at(kMills1, eighth));
    return V::fma(p, s, at(kMills0, eighth));
  }

 private:
  // e^r - 1 = r (first + second r + third r^2).
  TWINLENS_INLINE static Power power(V shifted, V n, V r, V first, V second, V third) {
    const Int i = (Int)shifted.raw;
    const V root = at(kRoots, i), q = V::fma(V::fma(third, r, second), r, first);
    return {n, V::fma(root, V::fma(q, r, at(kRootErrors, i)), root)};
  }

  static constexpr float kShift = 786432.0F;  // 1.5 * 2^19: rounds to 1/16, which its lowest bits count
  static constexpr float kInverseLn2 = 1.44269504088896341F, kLn2High = 0.693359375F, kLn2Low = -2.12194440e-4F;
  static constexpr float kLn2 = 0.693147181F;
  // e^r - 1 = r (first + second r + third r^2), error 1.6e-9
  static constexpr float kFirst = 1.0F, kSecond = 5.00016212e-01F, kThird = 1.66660741e-01F;

  alignas(64) static constexpr float kRoots[16] = {
      1.00000000e+00F, 1.04427373e+00F, 1.09050775e+00F, 1.13878858e+00F, 1.18920708e+00F, 1.24185777e+00F,
      1.29683959e+00F, 1.35425556e+00F, 1.41421354e+00F, 1.47682619e+00F, 1.54221082e+00F, 1.61049032e+00F,
      1.68179286e+00F, 1.75625217e+00F, 1.83400810e+00F, 1.91520655e+00F,
  };
  // Each 1.2e-4 of itself higher, half of what the series lacks at the most.
  alignas(64) static constexpr float kRaisedRoots[16] = {
      1.00011563e+00F, 1.04439449e+00F, 1.09063387e+00F, 1.13892031e+00F, 1.18934464e+00F, 1.24200141e+00F,
      1.29698944e+00F, 1.35441208e+00F, 1.41437709e+00F, 1.47699690e+00F, 1.54238915e+00F, 1.61067653e+00F,
      1.68198729e+00F, 1.75645518e+00F, 1.83422017e+00F, 1.91542804e+00F,
  };
  // How much of itself rounding took from each.
  alignas(64) static constexpr float kRootErrors[16] = {
      0.00000000e+00F,  4.62854715e-08F,  -1.19921575e-08F, 4.72978243e-08F,  3.19341815e-08F, 3.62105723e-08F,
      -3.09907193e-08F, -7.47521334e-09F, 1.71142709e-08F,  -3.04768335e-08F, 5.23333421e-09F, 6.10759177e-09F,
      -1.47196051e-08F, -5.25879518e-09F, -6.12825968e-09F, 5.14060927e-09F,
  };
  // By the lowest five bits of `eighth`, from 1 + t = 2 on: coefficients of s^k, error 9.1e-8.
  alignas(64) static constexpr float kMills0[32] = {
      2.61578292e-01F, 2.30760321e-01F, 2.05780670e-01F, 1.85231671e-01F, 1.68101996e-01F, 1.53651938e-01F, 1.41331330e-01F,
      1.30724728e-01F, 1.21513940e-01F, 1.06345147e-01F, 9.44106430e-02F, 8.48033875e-02F, 7.69193023e-02F, 7.03426972e-02F,
      6.47793114e-02F, 6.00156747e-02F, 5.58934808e-02F, 4.91225459e-02F, 4.37987894e-02F, 3.95066924e-02F, 3.59748900e-02F,
      3.30189727e-02F, 3.05094142e-02F, 2.83526611e-02F, 5.00000000e-01F, 4.53793228e-01F, 4.14032102e-01F, 3.79604429e-01F,
      3.49618822e-01F, 3.23356181e-01F, 3.00232470e-01F, 2.79770583e-01F,
  };
  alignas(64) static constexpr float kMills1[32] = {
      -1.37362972e-01F, -1.10491246e-01F, -9.02708694e-02F, -7.47865960e-02F, -6.27380982e-02F, -5.32252975e-02F, -4.56138663e-02F,
      -3.94492000e-02F, -3.43998298e-02F, -2.67339181e-02F, -2.12995317e-02F, -1.73269082e-02F, -1.43456897e-02F, -1.20574217e-02F,
      -1.02663673e-02F, -8.84037279e-03F, -7.68773491e-03F, -5.96182607e-03F, -4.75313514e-03F, -3.87531379e-03F, -3.21847945e-03F,
      -2.71461811e-03F, -2.31988588e-03F, -2.00502900e-03F, -3.98941696e-01F, -3.42217714e-01F, -2.95433939e-01F, -2.56590366e-01F,
      -2.24132672e-01F, -1.96844533e-01F, -1.73767820e-01F, -1.54142946e-01F,
  };
  alignas(64) static constexpr float kMills2[32] = {
      6.20747656e-02F, 4.63023297e-02F, 3.51737328e-02F, 2.71686856e-02F, 2.13069338e-02F, 1.69434212e-02F, 1.36454869e-02F,
      1.11177024e-02F, 9.14655067e-03F, 6.38240157e-03F, 4.60293144e-03F, 3.41417175e-03F, 2.59420392e-03F, 2.01265537e-03F,
      1.59004086e-03F, 1.27627980e-03F, 1.03771407e-03F, 7.12947163e-04F, 5.09716454e-04F, 3.76443408e-04F, 2.85602146e-04F,
      2.21645052e-04F, 1.75361158e-04F, 1.41067299e-04F, 2.49963477e-01F, 2.05480590e-01F, 1.70066088e-01F, 1.41675740e-01F,
      1.18764155e-01F, 1.00154839e-01F, 8.49460512e-02F, 7.24420846e-02F,
  };
  alignas(64) static constexpr float kMills3[32] = {
      -2.47175153e-02F, -1.72976274e-02F, -1.23477252e-02F, -8.97743832e-03F, -6.63858606e-03F, -4.98648407e-03F, -3.80006526e-03F,
      -2.93487473e-03F, -2.25447235e-03F, -1.42909633e-03F, -9.41804785e-04F, -6.41882129e-04F, -4.50435851e-04F, -3.24259570e-04F,
      -2.38720168e-04F, -1.79261086e-04F, -1.34180867e-04F, -8.23267328e-05F, -5.31004116e-05F, -3.56881574e-05F, -2.48243960e-05F,
      -1.77773836e-05F, -1.30519011e-05F, -9.79117794e-06F, -1.32156506e-01F, -1.04891844e-01F, -8.38374123e-02F, -6.74637556e-02F,
      -5.46430536e-02F, -4.45377938e-02F, -3.65217365e-02F, -3.01234927e-02F,
  };
  alignas(64) static constexpr float kMills4[32] = {
      7.50647532e-03F, 5.00282459e-03F, 3.40332417e-03F, 2.35989341e-03F, 1.66575750e-03F, 1.19544019e-03F, 8.71251395e-04F,
      6.44164684e-04F, 4.20846685e-04F, 2.47825315e-04F, 1.52206034e-04F, 9.69805333e-05F, 6.38194470e-05F, 4.32095476e-05F,
      3.00021929e-05F, 2.13042822e-05F, 1.32716123e-05F, 7.45168018e-06F, 4.42623605e-06F, 2.75502907e-06F, 1.78368487e-06F,
      1.19420679e-06F, 8.22974414e-07F, 5.81564791e-07F, 5.47938757e-02F, 4.23038714e-02F, 3.28920782e-02F, 2.57495865e-02F,
      2.02919096e-02F, 1.60937309e-02F, 1.28434282e-02F, 1.03111379e-02F,
  };
};

}  // namespace twinlens
