#pragma once
// Several registers as one, operation by operation. An elementwise function is one long chain of operations that wait for each other: of
// registers one behind the other a processor holds three or four chains at a time, and waits with them; of four side by side it always has
// something to do. A lane comes out the same either way, which is why operands are passed by value and no loop goes over the parts: a part
// that lies in memory between two operations, as it does in the -O1 of the sanitizer builds, has its a * b + c rounded twice.

#include "kernels/cpu/vec/vec.h"

namespace twinlens {

template <class I, int N>
struct Several {
  static constexpr int kWidth = N * I::kWidth;
};

// What elementwise functions take at a time of what is stored as T: four registers where that has been timed (AVX-512 has tables
// instead of long chains); of bf16, where an instruction rounds two registers to it, a register of pairs, taken apart into the first and
// the second of each. (Not beside another type: its lanes would lie in another order.)
template <class I, class... T>
struct SideBySide {
  using Set = I;
};
template <class... T>
struct SideBySide<Avx2, T...> {
  using Set = Several<Avx2, 4>;
};
template <class I, class... T>
requires(I::kBf16Dot && (__is_same(T, bf16) && ...)) struct SideBySide<I, T...> {
  using Set = Several<I, 2>;
};

// Raw vectors side by side, with the operators of the formulas; the other operand may be one number for all.
template <class R, int N>
struct Parts {
  static constexpr int kCount = N;
  R part[kCount];
  template <class S>
  TWINLENS_INLINE explicit operator Parts<S, N>() const {
    return each_part([](R r) { return (S)r; }, *this);
  }
};
template <class A>
concept AnyParts = requires(A a) {
  a.part[A::kCount - 1];
};

template <int... K>
struct Numbers {};
template <int N, int... K>
struct NumbersBelow : NumbersBelow<N - 1, N - 1, K...> {};
template <int... K>
struct NumbersBelow<0, K...> {
  using List = Numbers<K...>;
};

// f of the parts, one after the other; of what has no parts, itself every time.
template <int K, class A>
TWINLENS_INLINE auto part_of(A a) {
  if constexpr (AnyParts<A>) {
    return a.part[K];
  } else {
    return a;
  }
}
template <int K, class F, class... A>
TWINLENS_INLINE auto of_part(F f, A... a) {
  return f(part_of<K>(a)...);
}
template <int... K, class F, class... A>
TWINLENS_INLINE auto of_parts(Numbers<K...>, F f, A... a) {
  return Parts<decltype(of_part<0>(f, a...)), sizeof...(K)>{{of_part<K>(f, a...)...}};
}
template <class F, AnyParts A, class... B>
TWINLENS_INLINE auto each_part(F f, A a, B... b) {
  return of_parts(typename NumbersBelow<A::kCount>::List{}, f, a, b...);
}
// f of the numbers of the parts.
template <int... K, class F>
TWINLENS_INLINE auto numbered_parts(Numbers<K...>, F f) {
  return Parts<decltype(f(0)), sizeof...(K)>{{f(K)...}};
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

template <class I, int N>
struct Vec<Several<I, N>> {
  using Part = Vec<I>;
  using Raw = Parts<typename Part::Raw, N>;
  using Int = Parts<typename Part::Int, N>;
  static constexpr int kWidth = Several<I, N>::kWidth;

  Raw raw;

  TWINLENS_INLINE Vec() = default;
  TWINLENS_INLINE Vec(Raw r) : raw(r) {}
  TWINLENS_INLINE Vec(float x) : Vec(numbered_parts(Count{}, [x](int) { return Part(x).raw; })) {}
  TWINLENS_INLINE Part part(int i) const { return raw.part[i]; }

  template <class T>
  TWINLENS_INLINE static Vec load(const T* p) {
    return numbered_parts(Count{}, [p](int i) { return Part::load(p + i * Part::kWidth).raw; });
  }
#if defined(__AVX512BF16__)
  TWINLENS_INLINE static Vec load(const bf16* p) {
    static_assert(N == 2);
    typename Part::UInt both;
    std::memcpy(&both, p, sizeof both);
    return Raw{{(typename Part::Raw)(both << 16), (typename Part::Raw)(both & 0xFFFF0000U) }};
  }
#endif
  template <class T>
  TWINLENS_INLINE void store(T* p) const {
#if defined(__AVX512BF16__)
    if constexpr (__is_same(T, bf16) && Part::kWidth == 16) {
      const __m512i woven = _mm512_maskz_permutexvar_epi16(0xffffffff, weave(), rounded_to_bf16(part(0), part(1)));
      std::memcpy(static_cast<void*>(p), &woven, sizeof woven);
      return;
    }
#elif defined(__AVX2__) && !defined(__AVX512F__)
    if constexpr (__is_same(T, bf16) && Part::kWidth == 8) {
      if (!has_nan()) [[likely]] {
        for (int i = 0; i < N; i += 2) {  // packed by halves of a register
          const auto half = [&](int k) { return (__m256i)(Part::nearest_bf16(raw.part[k]) >> 16); };
          const __m256i both = _mm256_packus_epi32(half(i), half(i + 1));
          _mm256_storeu_si256(reinterpret_cast<__m256i*>(p + i * Part::kWidth), _mm256_permute4x64_epi64(both, 0xD8));
        }
        return;
      }
    }
#endif
    for (int i = 0; i < N; ++i) part(i).store(p + i * Part::kWidth);
  }

  TWINLENS_INLINE friend Vec operator+(Vec a, Vec b) { return a.raw + b.raw; }
  TWINLENS_INLINE friend Vec operator-(Vec a, Vec b) { return a.raw - b.raw; }
  TWINLENS_INLINE friend Vec operator*(Vec a, Vec b) { return a.raw * b.raw; }
  TWINLENS_INLINE friend Vec operator/(Vec a, Vec b) { return a.raw / b.raw; }
  TWINLENS_INLINE Vec& operator+=(Vec b) { return *this = *this + b; }
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
  // All parts added, two and two.
  TWINLENS_INLINE Part added() const {
    if constexpr (N == 2) {
      return part(0) + part(1);
    } else {
      return (part(0) + part(1)) + (part(2) + part(3));
    }
  }

 private:
#if defined(__AVX512BF16__)
  TWINLENS_INLINE static __m512i weave() {
    alignas(64) static constexpr std::uint16_t order[32] = {0, 16, 1, 17, 2,  18, 3,  19, 4,  20, 5,  21, 6,  22, 7,  23,
                                                            8, 24, 9, 25, 10, 26, 11, 27, 12, 28, 13, 29, 14, 30, 15, 31};
    return _mm512_load_si512(order);
  }
#endif
  using Count = typename NumbersBelow<N>::List;
#if defined(__AVX2__) && !defined(__AVX512F__)
  // Part::to_bf16, but for NaN, which all four are searched for at once.
  TWINLENS_INLINE bool has_nan() const {
    static_assert(N == 4);
    const auto& x = raw.part;
    const __m256 first = _mm256_cmp_ps((__m256)x[0], (__m256)x[1], _CMP_UNORD_Q);
    const __m256 last = _mm256_cmp_ps((__m256)x[2], (__m256)x[3], _CMP_UNORD_Q);
    return _mm256_movemask_ps(_mm256_or_ps(first, last)) != 0;
  }
#endif
};

// What is taken at a time along a row of T whose lanes may lie in any order: a register of pairs, where there is one.
template <class I, class T, bool = SideBySide<I, T>::Set::kWidth == 2 * I::kWidth>
struct AlongRow {
  using Set = I;
};
template <class I, class T>
struct AlongRow<I, T, true> {
  using Set = typename SideBySide<I, T>::Set;
};

}  // namespace twinlens
