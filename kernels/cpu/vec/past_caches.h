#pragma once
// Stores past the caches. An output that is larger than they are has left them again before anyone reads it; written around them, by whole
// lines, it spares the read of every line that a plain store begins with: a third of the traffic of a copy.

#if defined(__AVX__)
#include <immintrin.h>
#endif

#include "kernels/cpu/vec/vec.h"

#include "twinlens/kernels/memory.h"
#include "twinlens/kernels/view.h"

namespace twinlens {

// Whether the set can, and every row begins with a line.
TWINLENS_INLINE bool can_go_past_caches([[maybe_unused]] const Rows& out) {
#if defined(__AVX__)
  return (reinterpret_cast<std::uintptr_t>(out.data) | static_cast<std::uintptr_t>(out.stride * size_of(out.dtype))) % 64 == 0;
#else
  return false;
#endif
}

// Whether an output is written past the caches: it can be, is large, and not where an input lies, whose lines are in the caches already. Of
// a view into wider rows all of them count: what lies between is written next.
template <class... In>
TWINLENS_INLINE bool goes_past_caches(const Rows& out, const In&... in) {
  return row_count(out) * out.stride * size_of(out.dtype) >= past_caches_from() && (true && ... && (out.data != in.data)) &&
         can_go_past_caches(out);
}
// Of whole lines of it; the elements behind the last are stored plainly.
template <class... In>
TWINLENS_INLINE bool goes_past_caches(const Buffer& out, const In&... in) {
  const std::int64_t line = 64 / size_of(out.dtype);
  return goes_past_caches(Rows{out.data, out.dtype, out.count / line, line, line}, in...);
}

// A whole register, or several, to a multiple of their size in elements of T.
template <class I, class T>
TWINLENS_INLINE void store_past_caches(Vec<I> v, T* p) {
#if defined(__AVX__)
  alignas(64) T stored[Vec<I>::kWidth];
  v.store(stored);
#if defined(__AVX512F__)
  if constexpr (sizeof stored == 64) return _mm512_stream_si512(reinterpret_cast<__m512i*>(p), _mm512_load_si512(stored));
#endif
  if constexpr (sizeof stored == 16) {
    _mm_stream_si128(reinterpret_cast<__m128i*>(p), _mm_load_si128(reinterpret_cast<const __m128i*>(stored)));
  } else {
    const auto* from = reinterpret_cast<const __m256i*>(stored);
    auto* to = reinterpret_cast<__m256i*>(p);
    for (std::size_t i = 0; i < sizeof stored / 32; ++i) _mm256_stream_si256(to + i, _mm256_load_si256(from + i));
  }
#else
  v.store(p);
#endif
}

// What a chunk of work ends with that has stored past the caches, so that other threads see it.
TWINLENS_INLINE void end_past_caches() {
#if defined(__AVX__)
  _mm_sfence();
#endif
}

// How an output is stored.
struct RowOutput {
  bool past_caches;
  // A row that is written soon; rows past the caches are not read before.
  TWINLENS_INLINE void ask(const void* p) const {
    if (!past_caches) __builtin_prefetch(p, 1, 2);
  }
  // For all that a register of S is written to.
  template <class S, class T>
  TWINLENS_INLINE void ask_all(const T* p) const {
    for (int i = 0; i < S::kWidth; i += static_cast<int>(64 / sizeof(T))) ask(p + i);
  }
  template <class I, class T>
  TWINLENS_INLINE void store(Vec<I> v, T* p) const {
    if (past_caches) {
      store_past_caches<I>(v, p);
    } else {
      v.store(p);
    }
  }
  template <class I, class T>
  TWINLENS_INLINE void store(Vec<I> v, T* p, std::int64_t n) const {
    if (n == Vec<I>::kWidth) {
      store<I>(v, p);
    } else {
      store_lanes<I>(v, p, n);
    }
  }
  // Two registers, one behind the other; of bf16 a line at once.
  template <class I, class T>
  TWINLENS_INLINE void store_two(Vec<I> first, Vec<I> second, T* p) const {
#if defined(__AVX512BF16__)
    if constexpr (__is_same(T, bf16) && I::kWidth == 16) {
      const __m512i both = rounded_to_bf16(first, second);
      if (past_caches) return _mm512_stream_si512(reinterpret_cast<__m512i*>(p), both);
      return _mm512_storeu_si512(p, both);
    }
#endif
    store<I>(first, p);
    store<I>(second, p + I::kWidth);
  }
  TWINLENS_INLINE void end() const {
    if (past_caches) end_past_caches();
  }
};

}  // namespace twinlens
