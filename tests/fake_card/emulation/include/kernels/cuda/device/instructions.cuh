#pragma once
// In the place of kernels/cuda/device/instructions.cuh, which says what each does.

#include <cmath>
#include <cstdint>
#include <cstring>

#include "kernels/cuda/device/element.cuh"
#include "tests/fake_card/emulation/threads.h"

namespace twinlens::cuda {

template <class T>
void mma(float (&c)[4], const unsigned (&a)[4], unsigned b0, unsigned b1) {
  const unsigned own[6] = {a[0], a[1], a[2], a[3], b0, b1};
  const emulated::Given& given = emulated::exchange(~0U, own, sizeof own);
  const auto element = [&](int lane, int word, int k) {  // of two neighbours in a word
    T x;
    std::memcpy(&x.bits, given.bytes[lane] + 4 * word + 2 * (k % 2), sizeof x.bits);
    return static_cast<double>(to_float(x));
  };
  const int g = emulated::lane() / 4, t = emulated::lane() % 4;
  double sums[4];
  for (int e = 0; e < 4; ++e) sums[e] = static_cast<double>(c[e]);
  for (int k = 0; k < 16; ++k) {
    const int quarter = k % 8 / 2, half = k / 8;
    double x[2], y[2];  // of rows g and g + 8, of columns 2 t and 2 t + 1
    for (int i = 0; i < 2; ++i) x[i] = element(g * 4 + quarter, i + 2 * half, k);
    for (int j = 0; j < 2; ++j) y[j] = element((2 * t + j) * 4 + quarter, 4 + half, k);
    for (int e = 0; e < 4; ++e) sums[e] += x[e / 2] * y[e % 2];
  }
  for (int e = 0; e < 4; ++e) c[e] = static_cast<float>(sums[e]);
}

inline void load_matrices(unsigned (&r)[4], const void* row) {
  const emulated::Given& rows = emulated::exchange(~0U, &row, sizeof row);
  const int g = emulated::lane() / 4, t = emulated::lane() % 4;
  for (int m = 0; m < 4; ++m) {
    const unsigned char* from = nullptr;
    std::memcpy(&from, rows.bytes[8 * m + g], sizeof from);
    std::memcpy(&r[m], from + 4 * t, sizeof r[m]);
  }
  emulated::exchange(~0U, "", 0);  // before somebody writes there
}

inline void load_matrices_turned(unsigned (&r)[4], const void* row) {
  const emulated::Given& rows = emulated::exchange(~0U, &row, sizeof row);
  const int g = emulated::lane() / 4, t = emulated::lane() % 4;
  for (int m = 0; m < 4; ++m) {
    std::uint16_t pair[2];
    for (int e = 0; e < 2; ++e) {
      const unsigned char* from = nullptr;
      std::memcpy(&from, rows.bytes[8 * m + 2 * t + e], sizeof from);
      std::memcpy(&pair[e], from + 2 * g, sizeof pair[e]);
    }
    std::memcpy(&r[m], pair, sizeof r[m]);
  }
  emulated::exchange(~0U, "", 0);
}

template <class T>
unsigned pack_pair(float low, float high) {
  return from_float<T>(low).bits | static_cast<unsigned>(from_float<T>(high).bits) << 16;
}

inline float exp2_fast(float x) { return std::exp2(x); }
inline float reciprocal_fast(float x) { return 1.0F / x; }

template <class Word>
void store_word(Word* to, const Word& word) {
  *to = word;
}

inline void copy_async(void* to, const void* from, bool real) { emulated::copy_later(to, real ? from : nullptr); }
inline void wait_for_copies() {
  emulated::end_group_of_copies();
  emulated::finish_groups_but(0);
}
inline void end_group_of_copies() { emulated::end_group_of_copies(); }
template <int kLeft>
void wait_for_groups_but() {
  emulated::finish_groups_but(kLeft);
}

}  // namespace twinlens::cuda
