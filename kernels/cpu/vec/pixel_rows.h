#pragma once
// Sums over neighbouring RGB pixels with weights in fixed point, several rows of a picture at once: a 128-bit lane for each row.
//
// A step is four taps. Of the 16 bytes of a lane 12 are used; they are shuffled to pairs of 16-bit numbers, r r, g g, b b, of two taps
// each, and multiplied and added pair by pair (PMADDWD). A weight is taken apart into w = high 2^12 + low, since a factor has 16 bits:
// |w| < 2^27. The sums are those of 32-bit integers to the bit, whatever their order.
//
// PixelRows<I>::kRows is 0 where the set has no such instruction.

#include "kernels/cpu/vec/vec.h"
#if defined(__AVX2__)
#include <immintrin.h>
#endif

namespace twinlens {

template <class I>
struct PixelRows {
  static constexpr int kRows = 0;
};

// The weights of four taps for PMADDWD: (tap 0, tap 1), (tap 2, tap 3).
struct TapPairs {
  std::int32_t high[2], low[2];
};
TWINLENS_INLINE TapPairs split_weights(const std::int32_t* w) {
  const auto pair = [](std::uint32_t first, std::uint32_t second) { return static_cast<std::int32_t>((first & 0xFFFFU) | second << 16); };
  const auto high = [](std::int32_t v) { return static_cast<std::uint32_t>(v >> 12); };
  const auto low = [](std::int32_t v) { return static_cast<std::uint32_t>(v) & 0xFFFU; };
  return {{pair(high(w[0]), high(w[1])), pair(high(w[2]), high(w[3]))}, {pair(low(w[0]), low(w[1])), pair(low(w[2]), low(w[3]))}};
}

// What is done to each lane: the bytes of taps 0 and 1, or of 2 and 3, among 16 that begin at tap 0, or that end behind tap 3.
template <class P>
TWINLENS_INLINE typename P::Int pair_order(int pair, bool at_end) {
  const std::int32_t first = 6 * pair + (at_end ? 4 : 0);
  typename P::Int order = {};
  for (int lane = 0; lane < P::kRows; ++lane) {
    for (int colour = 0; colour < 3; ++colour) {
      order[4 * lane + colour] = static_cast<std::int32_t>(0x80008000U) | (first + colour) | (first + colour + 3) << 16;
    }
    order[4 * lane + 3] = static_cast<std::int32_t>(0x80808080U);
  }
  return order;
}

#if defined(__AVX2__)
TWINLENS_INLINE __m128i load_lane(const std::uint8_t* p) { return _mm_loadu_si128(reinterpret_cast<const __m128i*>(p)); }
#endif

#if defined(__AVX512BW__)
template <>
struct PixelRows<Avx512> {
  static constexpr int kRows = 4;
  using Int = Lanes<16>::Int;
  TWINLENS_INLINE static Int load(const std::uint8_t* p, std::int64_t stride) {
    __m512i v = _mm512_castsi128_si512(load_lane(p));
    v = _mm512_inserti32x4(v, load_lane(p + stride), 1);
    v = _mm512_inserti32x4(v, load_lane(p + 2 * stride), 2);
    return (Int)_mm512_inserti32x4(v, load_lane(p + 3 * stride), 3);
  }
  TWINLENS_INLINE static Int shuffle(Int v, Int order) { return (Int)_mm512_shuffle_epi8((__m512i)v, (__m512i)order); }
  TWINLENS_INLINE static Int multiply_pairs(Int a, Int b) { return (Int)_mm512_madd_epi16((__m512i)a, (__m512i)b); }
  // The four numbers of each row, clipped to bytes, as one.
  TWINLENS_INLINE static Int to_bytes(Int v) {
    const __m512i words = _mm512_packs_epi32((__m512i)v, (__m512i)v);
    return (Int)_mm512_packus_epi16(words, words);
  }
};
#elif defined(__AVX2__)
template <>
struct PixelRows<Avx2> {
  static constexpr int kRows = 2;
  using Int = Lanes<8>::Int;
  TWINLENS_INLINE static Int load(const std::uint8_t* p, std::int64_t stride) {
    return (Int)_mm256_inserti128_si256(_mm256_castsi128_si256(load_lane(p)), load_lane(p + stride), 1);
  }
  TWINLENS_INLINE static Int shuffle(Int v, Int order) { return (Int)_mm256_shuffle_epi8((__m256i)v, (__m256i)order); }
  TWINLENS_INLINE static Int multiply_pairs(Int a, Int b) { return (Int)_mm256_madd_epi16((__m256i)a, (__m256i)b); }
  // The four numbers of each row, clipped to bytes, as one.
  TWINLENS_INLINE static Int to_bytes(Int v) {
    const __m256i words = _mm256_packs_epi32((__m256i)v, (__m256i)v);
    return (Int)_mm256_packus_epi16(words, words);
  }
};
#endif

}  // namespace twinlens
