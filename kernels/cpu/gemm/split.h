#pragma once
// f32 for tile registers, which multiply bf16 alone: x = high + middle + low, each a bf16 with the next 8 bits of x, and of the nine
// products of two such sums the six largest. What is left out is below 2^-24 of the product; the sums are f32, and shorter chains than
// multiply-adds one depth at a time would be. (Henry, Tang & Heinecke, "Leveraging the bfloat16 artificial intelligence datatype for
// higher-precision computations", ARITH 2019, arXiv:1904.06376.)
//
// Tile registers take denormal bf16 for 0, so operands and products below 2^-103 in magnitude lose bits. An infinite operand gives NaN
// where it meets a part that is 0, and high parts, which are rounded, can overflow where what they are parts of does not: sums that are not
// finite are taken again by multiply-adds (product.h).
//
// Only for files that are compiled for Avx512Amx.

#include "kernels/cpu/gemm/pack.h"

namespace twinlens::gemm {

// The parts of x as f32, in whose lower halves there is nothing.
template <class I>
struct Thirds {
  using V = Vec<I>;
  using Raw = typename V::Raw;
  using UInt = typename V::UInt;
  UInt part[3];  // high, middle, low

  TWINLENS_INLINE explicit Thirds(Raw x) {
    const UInt bits = (UInt)x;
    constexpr std::uint32_t kLarge = 0x58800000, kRoundsToInfinity = 0x7f7f8000;
    part[0] = upper_half(x);
    Raw rest = x - (Raw)part[0];
    if (_mm512_cmpge_epu32_mask((__m512i)(bits & 0x7fffffffU), (__m512i)(UInt{} + kLarge)) != 0) {
      __atomic_store_n(&met_large_numbers<I>, true, __ATOMIC_RELAXED);
      const __mmask16 large = _mm512_cmpge_epu32_mask((__m512i)(bits & 0x7fffffffU), (__m512i)(UInt{} + kRoundsToInfinity));
      // The largest numbers are cut off instead of rounded; infinities and NaN have no other parts.
      const UInt cut = bits & 0xffff0000U;
      const __mmask16 finite = _mm512_cmplt_epu32_mask((__m512i)(bits & 0x7fffffffU), (__m512i)(UInt{} + 0x7f800000U));
      const __mmask16 nan = _mm512_cmpgt_epu32_mask((__m512i)(bits & 0x7fffffffU), (__m512i)(UInt{} + 0x7f800000U));
      part[0] = (UInt)_mm512_mask_mov_epi32((__m512i)part[0], large, (__m512i)cut);
      part[0] = (UInt)_mm512_mask_or_epi32((__m512i)part[0], nan, (__m512i)part[0], (__m512i)(UInt{} + 0x00400000U));
      rest = (Raw)_mm512_maskz_sub_ps(finite, (__m512)x, (__m512)part[0]);
    }
    part[1] = upper_half(rest);
    part[2] = (UInt)(rest - (Raw)part[1]) & 0xffff0000U;  // (in whose lower half only denormal numbers have something)
  }

  // Rounded to bf16, halves away from zero.
  TWINLENS_INLINE static UInt upper_half(Raw x) { return ((UInt)x + 0x8000U) & 0xffff0000U; }
};

// Pairs of bf16 of the three parts, from n depths (32 are wanted) that lie side by side, and from two depths of 16 lines.
template <class I, class T>
TWINLENS_INLINE void pairs_along_depth(const T* p, std::int64_t n, typename Vec<I>::Raw (&pairs)[3]) {
  using V = Vec<I>;
  const Thirds<I> first((n >= 16 ? V::load(p) : V::load_partial(p, n)).raw);
  const Thirds<I> second((n >= 32 ? V::load(p + 16) : V::load_partial(p + 16, n - 16)).raw);
#pragma GCC unroll 3
  for (int i = 0; i < 3; ++i) {
    pairs[i] = (typename V::Raw)_mm512_cvtne2ps_pbh((__m512)second.part[i], (__m512)first.part[i]);
  }
}
template <class I, class T>
TWINLENS_INLINE void pairs_across(const T* p, std::int64_t stride, std::int64_t depths, std::int64_t lines,
                                  typename Vec<I>::Raw (&pairs)[3]) {
  using V = Vec<I>;
  const auto load = [&](const T* x) { return lines >= 16 ? V::load(x) : V::load_partial(x, lines); };
  const Thirds<I> even((depths >= 1 ? load(p) : V(0.0F)).raw), odd((depths >= 2 ? load(p + stride) : V(0.0F)).raw);
#pragma GCC unroll 3
  for (int i = 0; i < 3; ++i) pairs[i] = (typename V::Raw)(even.part[i] >> 16 | odd.part[i]);
}

// 16 lines of a step of 32 depths as squares of pairs, one for each part: by lines (a row is a line's 16 pairs) or by pairs.
template <class I, class T>
struct Squares {
  using Raw = typename Vec<I>::Raw;
  Raw of[3][16];

  TWINLENS_INLINE Squares(const Lines& in, std::int64_t line, std::int64_t lines, std::int64_t depth, std::int64_t depths, bool by_line) {
    const T* base = static_cast<const T*>(in.base) + line * in.line_stride + depth * in.depth_stride;
    const std::int64_t left = lines - line;
    const bool along = in.line_stride != 1;
    for (int i = 0; i < 16; ++i) {
      Raw pairs[3] = {};
      if (along) {
        if (i < left) pairs_along_depth<I>(base + i * in.line_stride, depths - depth, pairs);
      } else if (left > 0) {
        pairs_across<I>(base + 2 * i * in.depth_stride, in.depth_stride, depths - depth - 2 * i, left, pairs);
      }
      for (int part = 0; part < 3; ++part) of[part][i] = pairs[part];
    }
    if (along == by_line) return;
    for (auto& square : of) transpose<16>(square);
  }
};

// A panel of a: [step][part][width][16 pairs].
template <class I, class T>
void pack_rows_in_thirds(const Lines& in, std::int64_t lines, std::int64_t depths, std::int64_t width, float* out) {
  for (std::int64_t d = 0; d < depths; d += 32, out += 48 * width) {
    for (std::int64_t g = 0; g < width; g += 16) {
      const Squares<I, T> squares(in, g, lines, d, depths, true);
      for (int part = 0; part < 3; ++part) {
        for (int i = 0; i < 16; ++i) Vec<I>(squares.of[part][i]).store(out + (part * width + g + i) * 16);
      }
    }
  }
}

// A panel of b: [step][part][16 pairs][width].
template <class I, class T>
void pack_columns_in_thirds(const Lines& in, std::int64_t lines, std::int64_t depths, std::int64_t width, float* out) {
  for (std::int64_t d = 0; d < depths; d += 32, out += 48 * width) {
    for (std::int64_t g = 0; g < width; g += 16) {
      const Squares<I, T> squares(in, g, lines, d, depths, false);
      for (int part = 0; part < 3; ++part) {
        for (int i = 0; i < 16; ++i) Vec<I>(squares.of[part][i]).store(out + (part * 16 + i) * width + g);
      }
    }
  }
}

}  // namespace twinlens::gemm
