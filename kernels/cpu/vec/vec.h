#pragma once
// Vec<Isa>: a register of floats. Written with the vector extensions of GCC and Clang, so one text serves every instruction set; the
// compiler flags of the translation unit decide the instructions. Math is f32; bf16 and f16 are storage formats converted on load and
// store (round to nearest even).
//
// Every function is a member of a template over the instruction-set tag, or always inlined: nothing here may emit a symbol that another
// set's object could be merged with.

#include <cstdint>
#include <cstring>
#if defined(__AVX2__)
#include <immintrin.h>
#endif

#include "twinlens/kernels/dtype.h"
#include "twinlens/kernels/isa.h"

namespace twinlens {

#define TWINLENS_INLINE [[gnu::always_inline]] inline

// The raw vector types by number of lanes (a vector_size that depends on a template parameter confuses GCC 12).
template <int Width>
struct Lanes;
template <>
struct Lanes<4> {
  typedef float Raw __attribute__((vector_size(16)));
  typedef std::int32_t Int __attribute__((vector_size(16)));
  typedef std::uint32_t UInt __attribute__((vector_size(16)));
  typedef std::uint16_t Half __attribute__((vector_size(8)));
};
template <>
struct Lanes<8> {
  typedef float Raw __attribute__((vector_size(32)));
  typedef std::int32_t Int __attribute__((vector_size(32)));
  typedef std::uint32_t UInt __attribute__((vector_size(32)));
  typedef std::uint16_t Half __attribute__((vector_size(16)));
  TWINLENS_INLINE static Lanes<4>::Raw low(Raw r) { return __builtin_shufflevector(r, r, 0, 1, 2, 3); }
  TWINLENS_INLINE static Lanes<4>::Raw high(Raw r) { return __builtin_shufflevector(r, r, 4, 5, 6, 7); }
};
template <>
struct Lanes<16> {
  typedef float Raw __attribute__((vector_size(64)));
  typedef std::int32_t Int __attribute__((vector_size(64)));
  typedef std::uint32_t UInt __attribute__((vector_size(64)));
  typedef std::uint16_t Half __attribute__((vector_size(32)));
  TWINLENS_INLINE static Lanes<8>::Raw low(Raw r) { return __builtin_shufflevector(r, r, 0, 1, 2, 3, 4, 5, 6, 7); }
  TWINLENS_INLINE static Lanes<8>::Raw high(Raw r) { return __builtin_shufflevector(r, r, 8, 9, 10, 11, 12, 13, 14, 15); }
};

template <class I>
struct Vec {
  static constexpr int kWidth = I::kWidth;
  using Raw = typename Lanes<kWidth>::Raw;
  using Int = typename Lanes<kWidth>::Int;
  using UInt = typename Lanes<kWidth>::UInt;
  using Half = typename Lanes<kWidth>::Half;

  Raw raw;

  TWINLENS_INLINE Vec() = default;
  TWINLENS_INLINE Vec(Raw r) : raw(r) {}
  TWINLENS_INLINE Vec(float x) : raw(x - Raw{}) {}  // broadcast (0 is subtracted, so that -0 stays -0)

  // --- memory -------------------------------------------------------------------------------------------------------------------
  TWINLENS_INLINE static Vec load(const float* p) {
    Vec r;
    std::memcpy(&r.raw, p, sizeof(Raw));
    return r;
  }
  TWINLENS_INLINE static Vec load(const bf16* p) {
    Half h;
    std::memcpy(&h, p, sizeof(Half));
    return from_bf16(h);
  }
  TWINLENS_INLINE static Vec load(const f16* p) {
    Half h;
    std::memcpy(&h, p, sizeof(Half));
    return from_f16(h);
  }
  TWINLENS_INLINE void store(float* p) const { std::memcpy(p, &raw, sizeof(Raw)); }
  TWINLENS_INLINE void store(bf16* p) const {
    const Half h = to_bf16(raw);
    std::memcpy(p, &h, sizeof(Half));
  }
  TWINLENS_INLINE void store(f16* p) const {
    const Half h = to_f16(raw);
    std::memcpy(p, &h, sizeof(Half));
  }

  // The first n < kWidth elements (none for n < 0); the rest of the register is `fill`. Reads nothing beyond them.
  template <class T>
  TWINLENS_INLINE static Vec load_partial(const T* p, std::int64_t n, float fill = 0.0F) {
#if defined(__AVX512BW__) && defined(__AVX512VL__)
    if constexpr (kWidth == 16) {
      const __mmask16 mask = first_lanes(n);
      if constexpr (sizeof(T) == 4) {
        return (Raw)_mm512_mask_loadu_ps((__m512)Vec(fill).raw, mask, p);
      } else {
        Half h;
        const __m256i loaded = _mm256_maskz_loadu_epi16(mask, p);
        std::memcpy(&h, &loaded, sizeof(h));
        Vec r;
        if constexpr (is_bf16<T>) {
          r = from_bf16(h);
        } else {
          r = from_f16(h);
        }
        return (Raw)_mm512_mask_mov_ps((__m512)Vec(fill).raw, mask, (__m512)r.raw);
      }
    }
#endif
    T buffer[kWidth];
    const T filler = narrow<T>(fill);
    for (int i = 0; i < kWidth; ++i) buffer[i] = filler;
    copy_fewer(buffer, p, n);
    return load(buffer);
  }
  template <class T>
  TWINLENS_INLINE void store_partial(T* p, std::int64_t n) const {
#if defined(__AVX512BW__) && defined(__AVX512VL__)
    if constexpr (kWidth == 16) {
      const __mmask16 mask = first_lanes(n);
      if constexpr (sizeof(T) == 4) {
        return _mm512_mask_storeu_ps(p, mask, (__m512)raw);
      } else {
        Half h;
        if constexpr (is_bf16<T>) {
          h = to_bf16(raw);
        } else {
          h = to_f16(raw);
        }
        return _mm256_mask_storeu_epi16(p, mask, (__m256i)h);
      }
    }
#endif
    T buffer[kWidth];
    store(buffer);
    copy_fewer(p, buffer, n);
  }

  // --- arithmetic ---------------------------------------------------------------------------------------------------------------
  TWINLENS_INLINE friend Vec operator+(Vec a, Vec b) { return a.raw + b.raw; }
  TWINLENS_INLINE friend Vec operator-(Vec a, Vec b) { return a.raw - b.raw; }
  TWINLENS_INLINE friend Vec operator*(Vec a, Vec b) { return a.raw * b.raw; }
  TWINLENS_INLINE friend Vec operator/(Vec a, Vec b) { return a.raw / b.raw; }
  TWINLENS_INLINE Vec operator-() const { return -raw; }
  TWINLENS_INLINE Vec& operator+=(Vec b) {
    raw += b.raw;
    return *this;
  }
  // a * b + c, contracted to one instruction where the set has it.
  TWINLENS_INLINE static Vec fma(Vec a, Vec b, Vec c) { return a.raw * b.raw + c.raw; }
  // a * b - product, rounded once on every set: what the rounding of a * b left out.
  TWINLENS_INLINE static Vec residual(Vec a, Vec b, Vec product) {
#if defined(__AVX2__)
    if constexpr (kWidth == 8) return (Raw)_mm256_fmsub_ps((__m256)a.raw, (__m256)b.raw, (__m256)product.raw);
#endif
    Raw r;
    for (int i = 0; i < kWidth; ++i) r[i] = __builtin_fmaf(a.raw[i], b.raw[i], -product.raw[i]);
    return r;
  }

  // The larger or smaller one, the first where they are equal or one is NaN: just what x86's instructions do with the operands swapped, but
  // gcc 12 makes a comparison and a blend of the conditional.
  TWINLENS_INLINE static Vec max(Vec a, Vec b) {
#if defined(__AVX512F__)
    if constexpr (kWidth == 16) return (Raw)_mm512_maskz_max_ps(0xFFFF, (__m512)b.raw, (__m512)a.raw);
#elif defined(__AVX2__)
    if constexpr (kWidth == 8) return (Raw)_mm256_max_ps((__m256)b.raw, (__m256)a.raw);
#endif
    return b.raw > a.raw ? b.raw : a.raw;
  }
  TWINLENS_INLINE static Vec min(Vec a, Vec b) {
#if defined(__AVX512F__)
    if constexpr (kWidth == 16) return (Raw)_mm512_maskz_min_ps(0xFFFF, (__m512)b.raw, (__m512)a.raw);
#elif defined(__AVX2__)
    if constexpr (kWidth == 8) return (Raw)_mm256_min_ps((__m256)b.raw, (__m256)a.raw);
#endif
    return b.raw < a.raw ? b.raw : a.raw;
  }
  TWINLENS_INLINE static Vec abs(Vec a) { return bits((Int)a.raw & 0x7FFFFFFF); }
  TWINLENS_INLINE static Vec sqrt(Vec a) {
#if defined(__AVX2__)
    if constexpr (kWidth == 8) return (Raw)_mm256_sqrt_ps((__m256)a.raw);
#endif
    Raw r;
    for (int i = 0; i < kWidth; ++i) r[i] = __builtin_sqrtf(a.raw[i]);
    return r;
  }
  // mask lanes are all ones or all zeros
  TWINLENS_INLINE static Vec select(Int mask, Vec yes, Vec no) { return mask ? yes.raw : no.raw; }
  TWINLENS_INLINE static Vec bits(Int i) { return (Raw)i; }
  // towards zero, and back
  TWINLENS_INLINE static Int whole(Vec a) { return __builtin_convertvector(a.raw, Int); }
  TWINLENS_INLINE static Vec number(Int i) { return __builtin_convertvector(i, Raw); }

  // --- reductions: a fixed tree, halves first ------------------------------------------------------------------------------------
  TWINLENS_INLINE float sum() const {
    return joined(raw, [](auto a, auto b) { return a + b; });
  }
  TWINLENS_INLINE float max() const {
    return joined(raw, [](auto a, auto b) { return b > a ? b : a; });
  }

  // --- conversions --------------------------------------------------------------------------------------------------------------
  TWINLENS_INLINE static UInt wide(Half h) {
#if defined(__AVX512F__)
    if constexpr (kWidth == 16) return (UInt)_mm512_maskz_cvtepu16_epi32(0xFFFF, (__m256i)h);  // (gcc 12 itself goes by halves)
#elif defined(__AVX2__)
    if constexpr (kWidth == 8) return (UInt)_mm256_cvtepu16_epi32((__m128i)h);
#endif
    return __builtin_convertvector(h, UInt);
  }
  TWINLENS_INLINE static Vec from_bf16(Half h) { return (Raw)(wide(h) << 16); }
  TWINLENS_INLINE static Half to_bf16(Raw r) {
#if defined(__AVX512BF16__)
    if constexpr (kWidth == 16) return (Half)_mm512_cvtneps_pbh((__m512)r);  // (denormal numbers become 0)
#elif defined(__AVX512BW__)
    if constexpr (kWidth == 16) {
      const UInt bits = (UInt)r, nearest = bits + 0x7FFFU + ((bits >> 16) & 1U);
      const __mmask16 nan = _mm512_cmp_ps_mask((__m512)r, (__m512)r, _CMP_UNORD_Q);
      const UInt quiet = (UInt)_mm512_mask_or_epi32((__m512i)nearest, nan, (__m512i)bits, _mm512_set1_epi32(0x400000));
      return (Half)_mm512_maskz_cvtepi32_epi16(0xFFFF, (__m512i)(quiet >> 16));
    }
#elif defined(__AVX2__)
    if constexpr (kWidth == 8) {
      const __m256 nan = _mm256_cmp_ps((__m256)r, (__m256)r, _CMP_UNORD_Q), quiet = (__m256)((UInt)r | 0x400000U);
      return low_halves((UInt)_mm256_blendv_ps((__m256)nearest_bf16(r), quiet, nan) >> 16);
    }
#endif
    const UInt u = (UInt)r;
    const UInt rounded = u + 0x7FFFU + ((u >> 16) & 1U);
    const UInt nan = (u | 0x400000U);
    const UInt is_nan = (UInt)((u & 0x7FFFFFFFU) > 0x7F800000U);
    return __builtin_convertvector(((is_nan & nan) | (~is_nan & rounded)) >> 16, Half);
  }
#if defined(__AVX2__) && !defined(__AVX512F__)
  // In the upper halves; not of NaN.
  TWINLENS_INLINE static UInt nearest_bf16(Raw r) { return (UInt)r + 0x7FFFU + ((UInt)r << 15 >> 31); }
  // Of lanes below 2^16.
  TWINLENS_INLINE static Half low_halves(UInt u) {
    const __m256i both = (__m256i)u;
    return (Half)_mm_packus_epi32(_mm256_castsi256_si128(both), _mm256_extracti128_si256(both, 1));
  }
#endif
  // f16 by integer and float arithmetic: exact for normal, subnormal, infinity and NaN.
  TWINLENS_INLINE static Vec from_f16(Half h) {
#if defined(__AVX512F__)
    if constexpr (kWidth == 16) return (Raw)_mm512_maskz_cvtph_ps(0xFFFF, (__m256i)h);
#endif
    const UInt u = wide(h);
    const UInt sign = (u & 0x8000U) << 16;
    const UInt magnitude = (u & 0x7FFFU) << 13;
    const Raw scaled = (Raw)magnitude * 0x1p112F;  // rebias the exponent; subnormals become exact too
    const UInt special = (UInt)(magnitude >= 0x0F800000U);
    const UInt value = (special & (magnitude | 0x7F800000U)) | (~special & (UInt)scaled);
    return (Raw)(value | sign);
  }
  TWINLENS_INLINE static Half to_f16(Raw r) {
#if defined(__AVX512F__)
    if constexpr (kWidth == 16) return (Half)_mm512_maskz_cvtps_ph(0xFFFF, (__m512)r, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
#endif
    const UInt u = (UInt)r;
    const UInt sign = (u >> 16) & 0x8000U;
    const UInt magnitude = u & 0x7FFFFFFFU;
    // normal numbers: round to 10 bits of mantissa, rebias
    const UInt normal = (magnitude + 0xFFFU + ((magnitude >> 13) & 1U) - 0x38000000U) >> 13;
    // subnormal results: adding 0.5 aligns the mantissa so that the float adder rounds
    const UInt subnormal = (UInt)((Raw)magnitude + 0.5F) - 0x3F000000U;
    const UInt is_subnormal = (UInt)(magnitude < 0x38800000U);
    const UInt is_overflow = (UInt)(magnitude >= 0x477FF000U);
    const UInt is_nan = (UInt)(magnitude > 0x7F800000U);
    UInt value = (is_subnormal & subnormal) | (~is_subnormal & normal);
    value = (is_overflow & 0x7C00U) | (~is_overflow & value);
    value = (is_nan & 0x7E00U) | (~is_nan & value);
    return __builtin_convertvector(value | sign, Half);
  }

#if defined(__AVX512F__)
  TWINLENS_INLINE static __mmask16 first_lanes(std::int64_t n) { return static_cast<__mmask16>(n > 0 ? (1U << n) - 1U : 0U); }
#endif

  // n < 2 Part elements (none for n < 0) in moves of falling sizes.
  template <int Part = kWidth / 2, class T>
  TWINLENS_INLINE static void copy_fewer(T* to, const T* from, std::int64_t n) {
    if (n <= 0) return;
    if ((n & Part) != 0) std::memcpy(static_cast<void*>(to), from, Part * sizeof(T));
    if constexpr (Part > 1) copy_fewer<Part / 2>(to + (n & Part), from + (n & Part), n & (Part - 1));
  }

  // All lanes put together: the halves of the register, the halves of that ...
  template <class R, class Join>
  TWINLENS_INLINE static float joined(R r, Join&& join) {
    constexpr int n = sizeof(R) / sizeof(float);
    if constexpr (n == 4) {
      return join(join(r[0], r[2]), join(r[1], r[3]));
    } else {
      return joined(typename Lanes<n / 2>::Raw(join(Lanes<n>::low(r), Lanes<n>::high(r))), join);
    }
  }

  template <class T>
  static constexpr bool is_bf16 = __is_same(T, bf16);

  template <class T>
  TWINLENS_INLINE static T narrow(float x) {
    if constexpr (sizeof(T) == 4) {
      return x;
    } else {
      T out[kWidth];
      Vec(x).store(out);
      return out[0];
    }
  }
  template <class T>
  TWINLENS_INLINE static float widen(T x) {
    if constexpr (sizeof(T) == 4) {
      return x;
    } else {
      T in[kWidth];
      for (int i = 0; i < kWidth; ++i) in[i] = x;
      return load(in).raw[0];
    }
  }
};

// Calls f(offset, n) over [0, count) in steps of one register: n == kWidth but for the last step.
template <class I, class F>
TWINLENS_INLINE void for_lanes(std::int64_t count, F&& f) {
  constexpr std::int64_t w = Vec<I>::kWidth;
  std::int64_t i = 0;
  for (; i + w <= count; i += w) f(i, w);
  if (i < count) f(i, count - i);
}
// The registers f(offset, n) over [0, count) put together by `join`, in four chains, whose steps do not wait for one another.
template <class I, class F, class Join>
TWINLENS_INLINE Vec<I> join_lanes(std::int64_t count, Vec<I> start, F&& f, Join&& join) {
  constexpr std::int64_t w = Vec<I>::kWidth;
  Vec<I> chain[4] = {start, start, start, start};
  std::int64_t i = 0;
  for (; i + 4 * w <= count; i += 4 * w) {
    for (int k = 0; k < 4; ++k) chain[k] = join(chain[k], f(i + k * w, w));
  }
  for (; i + w <= count; i += w) chain[0] = join(chain[0], f(i, w));
  if (i < count) chain[1] = join(chain[1], f(i, count - i));
  return join(join(chain[0], chain[1]), join(chain[2], chain[3]));
}
template <class I, class F>
TWINLENS_INLINE Vec<I> sum_lanes(std::int64_t count, F&& f) {
  return join_lanes<I>(count, Vec<I>(0.0F), f, [](Vec<I> a, Vec<I> b) { return a + b; });
}
template <class I, class F>
TWINLENS_INLINE Vec<I> max_lanes(std::int64_t count, F&& f) {
  return join_lanes<I>(count, Vec<I>(-__builtin_inff()), f, [](Vec<I> a, Vec<I> b) { return Vec<I>::max(a, b); });
}
// Loads or stores n <= kWidth elements; n == kWidth is known at compile time where it matters, after inlining. (Several registers,
// several.h, are always whole.)
template <class I, class T>
TWINLENS_INLINE Vec<I> load_lanes(const T* p, std::int64_t n, float fill = 0.0F) {
  if constexpr (requires { Vec<I>::load_partial(p, n, fill); }) {
    if (n != Vec<I>::kWidth) return Vec<I>::load_partial(p, n, fill);
  }
  return Vec<I>::load(p);
}
template <class I, class T>
TWINLENS_INLINE void store_lanes(Vec<I> v, T* p, std::int64_t n) {
  if constexpr (requires { v.store_partial(p, n); }) {
    if (n != Vec<I>::kWidth) return v.store_partial(p, n);
  }
  v.store(p);
}

#if defined(__AVX512BF16__)
// One behind the other. (Denormal numbers become 0, as in Vec::to_bf16.)
template <class I>
TWINLENS_INLINE __m512i rounded_to_bf16(Vec<I> first, Vec<I> second) {
  return (__m512i)_mm512_cvtne2ps_pbh((__m512)second.raw, (__m512)first.raw);
}
#endif

// Copies n floats; where one instruction rounds two registers to bf16, by two of them.
template <class I, class T>
TWINLENS_INLINE void store_run(const float* from, T* to, std::int64_t n) {
  std::int64_t done = 0;
#if defined(__AVX512BF16__)
  if constexpr (__is_same(T, bf16)) {
    for (; done + 32 <= n; done += 32) {
      _mm512_storeu_si512(to + done, rounded_to_bf16(Vec<I>::load(from + done), Vec<I>::load(from + done + 16)));
    }
  }
#endif
  for_lanes<I>(n - done,
               [&](std::int64_t i, std::int64_t lanes) { store_lanes<I>(load_lanes<I>(from + done + i, lanes), to + done + i, lanes); });
}

}  // namespace twinlens
