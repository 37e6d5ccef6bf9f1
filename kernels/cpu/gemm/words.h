#pragma once
// A word is what one lane of the micro-kernel consumes in one step: one f32, or two neighbouring depths in bf16 (the pairs of
// VDPBF16PS). Operands become words when they are packed: from then on it does not matter what they were stored as.

#include "kernels/cpu/gemm/form.h"
#include "kernels/cpu/vec/vec.h"

namespace twinlens::gemm {

// A register narrower than the set's own, for panels that are narrower.
template <class I, int W>
struct Narrow {
  static constexpr int kWidth = W;
};

// Words of one depth. Round: to bf16 first, so that sets without bf16 dot products compute the same function.
template <class T, bool Round>
struct FloatWords {
  using Element = T;
  static constexpr int kDepths = 1;

  // W words from kDepths * W consecutive depths, of which only the first n may be read; the rest is 0.
  template <class I>
  TWINLENS_INLINE static typename Vec<I>::Raw along_depth(const T* p, std::int64_t n) {
    return rounded<I>(n >= I::kWidth ? Vec<I>::load(p) : Vec<I>::load_partial(p, n));
  }
  // W words of W neighbouring lines at kDepths depths, `stride` apart, of which `depths` may be read.
  template <class I>
  TWINLENS_INLINE static typename Vec<I>::Raw across(const T* p, std::int64_t, std::int64_t, std::int64_t lines) {
    return rounded<I>(lines >= I::kWidth ? Vec<I>::load(p) : Vec<I>::load_partial(p, lines));
  }

 private:
  template <class I>
  TWINLENS_INLINE static typename Vec<I>::Raw rounded(Vec<I> v) {
    if constexpr (Round && sizeof(T) == 4) {
      return Vec<I>::from_bf16(Vec<I>::to_bf16(v.raw)).raw;
    } else {
      return v.raw;
    }
  }
};

// Words of two depths, the even one in the low half.
template <class T>
struct PairWords {
  using Element = T;
  static constexpr int kDepths = 2;

  template <class I>
  TWINLENS_INLINE static typename Vec<I>::Raw along_depth(const T* p, std::int64_t n) {
    constexpr int w = I::kWidth;
    typename Vec<I>::Raw r;
    if constexpr (sizeof(T) == 2) {
      if (n >= 2 * w) {
        std::memcpy(&r, p, sizeof(r));
      } else {
        using UInt = typename Vec<I>::UInt;
        UInt words = (UInt)Vec<I>::load_partial(static_cast<const float*>(static_cast<const void*>(p)), n / 2).raw;
        if (n > 0 && n % 2 != 0) words[n / 2] = p[n - 1].bits;
        r = (typename Vec<I>::Raw)words;
      }
    } else {
      typename Vec<I>::Half half[2];
      half[0] = Vec<I>::to_bf16((n >= w ? Vec<I>::load(p) : Vec<I>::load_partial(p, n)).raw);
      half[1] = Vec<I>::to_bf16((n >= 2 * w ? Vec<I>::load(p + w) : Vec<I>::load_partial(p + w, n - w)).raw);
      std::memcpy(&r, half, sizeof(r));
    }
    return r;
  }
  template <class I>
  TWINLENS_INLINE static typename Vec<I>::Raw across(const T* p, std::int64_t stride, std::int64_t depths, std::int64_t lines) {
    using UInt = typename Vec<I>::UInt;
    const UInt low = half_words<I>(p, lines);
    const UInt high = depths >= 2 ? half_words<I>(p + stride, lines) : UInt{};
    return (typename Vec<I>::Raw)(low | (high << 16));
  }

 private:
  template <class I>
  TWINLENS_INLINE static typename Vec<I>::UInt half_words(const T* p, std::int64_t lines) {
    using V = Vec<I>;
    const V v = lines >= I::kWidth ? V::load(p) : V::load_partial(p, lines);
    if constexpr (sizeof(T) == 2) {
      return (typename V::UInt)v.raw >> 16;  // widening put the bits into the high half
    } else {
      return __builtin_convertvector(V::to_bf16(v.raw), typename V::UInt);
    }
  }
};

}  // namespace twinlens::gemm
