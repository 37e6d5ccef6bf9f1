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

// Whether an output is written past the caches: it is large, not where an input lies (whose lines are in the caches already), and every
// row begins with a line.
TWINLENS_INLINE bool goes_past_caches([[maybe_unused]] const void* out, [[maybe_unused]] const void* in,
                                      [[maybe_unused]] std::int64_t row_bytes, [[maybe_unused]] std::int64_t bytes) {
#if defined(__AVX__)
  return bytes >= past_caches_from() && out != in &&
         (reinterpret_cast<std::uintptr_t>(out) | static_cast<std::uintptr_t>(row_bytes)) % 64 == 0;
#else
  return false;
#endif
}

TWINLENS_INLINE bool goes_past_caches(const Rows& out, const void* in) {
  const std::int64_t size = size_of(out.dtype);
  return goes_past_caches(out.data, in, out.stride * size, row_count(out) * out.stride * size);  // (what lies between is written next)
}

// A whole register, to a multiple of its size in elements of T.
template <class I, class T>
TWINLENS_INLINE void store_past_caches(Vec<I> v, T* p) {
#if defined(__AVX__)
  alignas(64) T stored[Vec<I>::kWidth];
  v.store(stored);
  if constexpr (sizeof stored == 64) {
    _mm512_stream_si512(reinterpret_cast<__m512i*>(p), _mm512_load_si512(stored));
  } else if constexpr (sizeof stored == 32) {
    _mm256_stream_si256(reinterpret_cast<__m256i*>(p), _mm256_load_si256(reinterpret_cast<const __m256i*>(stored)));
  } else {
    _mm_stream_si128(reinterpret_cast<__m128i*>(p), _mm_load_si128(reinterpret_cast<const __m128i*>(stored)));
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

// The output of a kernel that works row by row.
struct RowOutput {
  bool past_caches;
  // A row that is written soon; rows past the caches are not read before.
  TWINLENS_INLINE void ask(const void* p) const {
    if (!past_caches) __builtin_prefetch(p, 1, 2);
  }
  template <class I, class T>
  TWINLENS_INLINE void store(Vec<I> v, T* p, std::int64_t n = Vec<I>::kWidth) const {
    if (past_caches && n == Vec<I>::kWidth) {
      store_past_caches<I>(v, p);
    } else {
      store_lanes<I>(v, p, n);
    }
  }
  TWINLENS_INLINE void end() const {
    if (past_caches) end_past_caches();
  }
};

}  // namespace twinlens
