#pragma once
// Transposes a square of registers: r[i] lane j becomes r[j] lane i.
//
// log2(width) rounds of perfect shuffles: a round sends register pair (i, i + width / 2) to (2i, 2i + 1) with lanes interleaved, which
// rotates the bits of the joint index (register, lane) by one place.

#include "kernels/cpu/vec/vec.h"

namespace twinlens {

template <int Width>
struct Zip;
template <>
struct Zip<4> {
  using Raw = Lanes<4>::Raw;
  TWINLENS_INLINE static Raw low(Raw a, Raw b) { return __builtin_shufflevector(a, b, 0, 4, 1, 5); }
  TWINLENS_INLINE static Raw high(Raw a, Raw b) { return __builtin_shufflevector(a, b, 2, 6, 3, 7); }
};
template <>
struct Zip<8> {
  using Raw = Lanes<8>::Raw;
  TWINLENS_INLINE static Raw low(Raw a, Raw b) { return __builtin_shufflevector(a, b, 0, 8, 1, 9, 2, 10, 3, 11); }
  TWINLENS_INLINE static Raw high(Raw a, Raw b) { return __builtin_shufflevector(a, b, 4, 12, 5, 13, 6, 14, 7, 15); }
};
template <>
struct Zip<16> {
  using Raw = Lanes<16>::Raw;
  TWINLENS_INLINE static Raw low(Raw a, Raw b) {
    return __builtin_shufflevector(a, b, 0, 16, 1, 17, 2, 18, 3, 19, 4, 20, 5, 21, 6, 22, 7, 23);
  }
  TWINLENS_INLINE static Raw high(Raw a, Raw b) {
    return __builtin_shufflevector(a, b, 8, 24, 9, 25, 10, 26, 11, 27, 12, 28, 13, 29, 14, 30, 15, 31);
  }
};

template <class I>
TWINLENS_INLINE void transpose_square(Vec<I> (&r)[Vec<I>::kWidth]) {
  constexpr int w = Vec<I>::kWidth;
  for (int round = 1; round < w; round *= 2) {
    Vec<I> next[w];
    for (int i = 0; i < w / 2; ++i) {
      next[2 * i] = Zip<w>::low(r[i].raw, r[i + w / 2].raw);
      next[2 * i + 1] = Zip<w>::high(r[i].raw, r[i + w / 2].raw);
    }
    for (int i = 0; i < w; ++i) r[i] = next[i];
  }
}

}  // namespace twinlens
