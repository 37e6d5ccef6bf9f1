#pragma once
// In the place of kernels/cuda/device/instructions.cuh, which says what each does.

#include <cmath>
#include <cstdint>
#include <cstring>

#include "kernels/cuda/device/element.cuh"
#include "tests/fake_card/emulation/threads.h"

namespace twinlens::cuda {

// Two neighbouring elements of a register.
template <class T>
double element_of_pair(unsigned pair, int which) {
  return static_cast<double>(to_float(T{static_cast<std::uint16_t>(pair >> (16 * which))}));
}

template <class T>
void mma(float (&c)[4], const unsigned (&a)[4], unsigned b0, unsigned b1) {
  // a and b take 24 bytes: in two goes.
  const emulated::Given of_a = emulated::exchange(~0U, a, sizeof a);
  const unsigned b[2] = {b0, b1};
  const emulated::Given& of_b = emulated::exchange(~0U, b, sizeof b);
  const int g = emulated::lane() / 4, t = emulated::lane() % 4;
  for (int e = 0; e < 4; ++e) {
    const int row = e / 2, column = 2 * t + e % 2;  // row: g or g + 8
    double sum = static_cast<double>(c[e]);
    for (int k = 0; k < 16; ++k) {
      unsigned x = 0, y = 0;
      std::memcpy(&x, of_a.bytes[g * 4 + k % 8 / 2] + 4 * (row + k / 8 * 2), sizeof x);
      std::memcpy(&y, of_b.bytes[column * 4 + k % 8 / 2] + 4 * (k / 8), sizeof y);
      sum += element_of_pair<T>(x, k % 2) * element_of_pair<T>(y, k % 2);
    }
    c[e] = static_cast<float>(sum);
  }
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
