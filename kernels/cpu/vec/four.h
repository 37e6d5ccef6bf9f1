#pragma once
// Four registers as one, operation by operation. An elementwise function is one long chain of operations that wait for each other: of
// registers one behind the other a processor holds three or four chains at a time, and waits with them; of four side by side it always has
// something to do. A lane comes out the same either way, which is why operands are passed by value and no loop goes over the parts: a part
// that lies in memory between two operations, as it does in the -O1 of the sanitizer builds, has its a * b + c rounded twice.

#include "kernels/cpu/vec/vec.h"

namespace twinlens {

template <class I>
struct Four {
  static constexpr int kWidth = 4 * I::kWidth;
};

// What elementwise functions take at a time: four registers where that has been timed. (AVX-512 has tables instead of long chains.)
template <class I>
struct SideBySide {
  using Set = I;
};
template <>
struct SideBySide<Avx2> {
  using Set = Four<Avx2>;
};

// Raw vectors side by side, with the operators of the formulas; the other operand may be one number for all.
template <class R>
struct Parts {
  static constexpr int kCount = 4;
  R part[kCount];
  template <class S>
  TWINLENS_INLINE explicit operator Parts<S>() const {
    return {{(S)part[0], (S)part[1], (S)part[2], (S)part[3]}};
  }
};
template <class A>
concept AnyParts = requires(A a) {
  a.part[A::kCount - 1];
};

// f of the parts, one after the other; of what has no parts, itself every time.
template <class A>
TWINLENS_INLINE auto part_of(A a, [[maybe_unused]] int i) {
  if constexpr (AnyParts<A>) {
    return a.part[i];
  } else {
    return a;
  }
}
template <class F, AnyParts A, class... B>
TWINLENS_INLINE auto each_part(F f, A a, B... b) {
  return Parts<decltype(f(a.part[0], part_of(b, 0)...))>{
      {f(a.part[0], part_of(b, 0)...), f(a.part[1], part_of(b, 1)...), f(a.part[2], part_of(b, 2)...), f(a.part[3], part_of(b, 3)...)}};
}
TWINLENS_INLINE auto operator+(AnyParts auto a, auto b) {
  return each_part([](auto x, auto y) { return x + y; }, a, b);
}
TWINLENS_INLINE auto operator-(AnyParts auto a, auto b) {
  return each_part([](auto x, auto y) { return x - y; }, a, b);
}
TWINLENS_INLINE auto operator*(AnyParts auto a, auto b) {
  return each_part([](auto x, auto y) { return x * y; }, a, b);
}
TWINLENS_INLINE auto operator/(AnyParts auto a, auto b) {
  return each_part([](auto x, auto y) { return x / y; }, a, b);
}
TWINLENS_INLINE auto operator&(AnyParts auto a, auto b) {
  return each_part([](auto x, auto y) { return x & y; }, a, b);
}
TWINLENS_INLINE auto operator|(AnyParts auto a, auto b) {
  return each_part([](auto x, auto y) { return x | y; }, a, b);
}
TWINLENS_INLINE auto operator<<(AnyParts auto a, auto b) {
  return each_part([](auto x, auto y) { return x << y; }, a, b);
}
TWINLENS_INLINE auto operator>>(AnyParts auto a, auto b) {
  return each_part([](auto x, auto y) { return x >> y; }, a, b);
}
TWINLENS_INLINE auto operator<(AnyParts auto a, auto b) {
  return each_part([](auto x, auto y) { return x < y; }, a, b);
}
TWINLENS_INLINE auto operator<=(AnyParts auto a, auto b) {
  return each_part([](auto x, auto y) { return x <= y; }, a, b);
}
TWINLENS_INLINE auto operator>(AnyParts auto a, auto b) {
  return each_part([](auto x, auto y) { return x > y; }, a, b);
}
TWINLENS_INLINE auto operator>=(AnyParts auto a, auto b) {
  return each_part([](auto x, auto y) { return x >= y; }, a, b);
}
TWINLENS_INLINE auto operator==(AnyParts auto a, auto b) {
  return each_part([](auto x, auto y) { return x == y; }, a, b);
}
TWINLENS_INLINE auto operator!=(AnyParts auto a, auto b) {
  return each_part([](auto x, auto y) { return x != y; }, a, b);
}

template <class I>
struct Vec<Four<I>> {
  using Part = Vec<I>;
  using Raw = Parts<typename Part::Raw>;
  using Int = Parts<typename Part::Int>;
  static constexpr int kWidth = Four<I>::kWidth;

  Raw raw;

  TWINLENS_INLINE Vec() = default;
  TWINLENS_INLINE Vec(Raw r) : raw(r) {}
  TWINLENS_INLINE Vec(Part a, Part b, Part c, Part d) : raw{{a.raw, b.raw, c.raw, d.raw}} {}
  TWINLENS_INLINE Vec(float x) : Vec(Part(x), Part(x), Part(x), Part(x)) {}
  TWINLENS_INLINE Part part(int i) const { return raw.part[i]; }

  template <class T>
  TWINLENS_INLINE static Vec load(const T* p) {
    return Vec(Part::load(p), Part::load(p + Part::kWidth), Part::load(p + 2 * Part::kWidth), Part::load(p + 3 * Part::kWidth));
  }
  template <class T>
  TWINLENS_INLINE void store(T* p) const {
#if defined(__AVX2__)
    if constexpr (__is_same(T, bf16) && Part::kWidth == 8) {
      if (!has_nan()) [[likely]] {
        for (int i = 0; i < Raw::kCount; i += 2) {  // packed by halves of a register
          const __m256i both = _mm256_packus_epi32(rounded_to_bf16(i), rounded_to_bf16(i + 1));
          _mm256_storeu_si256(reinterpret_cast<__m256i*>(p + i * Part::kWidth), _mm256_permute4x64_epi64(both, 0xD8));
        }
        return;
      }
    }
#endif
    for (int i = 0; i < Raw::kCount; ++i) part(i).store(p + i * Part::kWidth);
  }

  TWINLENS_INLINE friend Vec operator+(Vec a, Vec b) { return a.raw + b.raw; }
  TWINLENS_INLINE friend Vec operator-(Vec a, Vec b) { return a.raw - b.raw; }
  TWINLENS_INLINE friend Vec operator*(Vec a, Vec b) { return a.raw * b.raw; }
  TWINLENS_INLINE friend Vec operator/(Vec a, Vec b) { return a.raw / b.raw; }
  TWINLENS_INLINE Vec operator-() const {
    return each_part([](auto x) { return -x; }, raw);
  }
  TWINLENS_INLINE static Vec fma(Vec a, Vec b, Vec c) { return a.raw * b.raw + c.raw; }
  TWINLENS_INLINE static Vec residual(Vec a, Vec b, Vec product) {
    return each_part([](Part x, Part y, Part z) { return Part::residual(x, y, z).raw; }, a.raw, b.raw, product.raw);
  }
  TWINLENS_INLINE static Vec max(Vec a, Vec b) {
    return each_part([](Part x, Part y) { return Part::max(x, y).raw; }, a.raw, b.raw);
  }
  TWINLENS_INLINE static Vec min(Vec a, Vec b) {
    return each_part([](Part x, Part y) { return Part::min(x, y).raw; }, a.raw, b.raw);
  }
  TWINLENS_INLINE static Vec abs(Vec a) {
    return each_part([](Part x) { return Part::abs(x).raw; }, a.raw);
  }
  TWINLENS_INLINE static Vec sqrt(Vec a) {
    return each_part([](Part x) { return Part::sqrt(x).raw; }, a.raw);
  }
  TWINLENS_INLINE static Vec select(Int mask, Vec yes, Vec no) {
    return each_part([](auto m, Part x, Part y) { return Part::select(m, x, y).raw; }, mask, yes.raw, no.raw);
  }
  TWINLENS_INLINE static Vec bits(Int i) { return (Raw)i; }
  TWINLENS_INLINE static Int whole(Vec a) {
    return each_part([](Part x) { return Part::whole(x); }, a.raw);
  }
  TWINLENS_INLINE static Vec number(Int i) {
    return each_part([](auto x) { return Part::number(x).raw; }, i);
  }
  // The four added, two and two.
  TWINLENS_INLINE Part added() const { return (part(0) + part(1)) + (part(2) + part(3)); }

#if defined(__AVX2__)
 private:
  // Part::to_bf16, but for NaN, which all four are searched for at once.
  TWINLENS_INLINE bool has_nan() const {
    const auto& x = raw.part;
    const __m256 first = _mm256_cmp_ps((__m256)x[0], (__m256)x[1], _CMP_UNORD_Q);
    const __m256 last = _mm256_cmp_ps((__m256)x[2], (__m256)x[3], _CMP_UNORD_Q);
    return _mm256_movemask_ps(_mm256_or_ps(first, last)) != 0;
  }
  TWINLENS_INLINE __m256i rounded_to_bf16(int i) const {
    const auto bits = (typename Part::UInt)raw.part[i];
    return (__m256i)((bits + 0x7FFFU + (bits << 15 >> 31)) >> 16);
  }
#endif
};

}  // namespace twinlens
