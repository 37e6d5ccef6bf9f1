#pragma once
// Loops that do nothing but what a processor is fastest at: multiply-adds between registers, and copying memory.

#include "twinlens/kernels/run.h"

namespace twinlens::bench {

// `rounds` rounds of independent multiply-adds on each of `threads` threads, in f32 or by bf16 dot products (where the set has them).
struct PeakLoop {
  static constexpr const char* kName = "peak_loop";
  static constexpr bool kCuda = false;
  static constexpr UsesBf16 kBf16 = UsesBf16::products;
  std::int64_t threads = 1, rounds = 0;
  bool bf16 = false;
  float* sums = nullptr;         // (threads)
  double* flop_rates = nullptr;  // (threads) of each, a second of its time on the processor; written
};
template <class I>
void kernel(I, const PeakLoop&);

// y = x, past the caches or by plain stores. y is a multiple of a line.
struct CopyLoop {
  static constexpr const char* kName = "copy_loop";
  static constexpr bool kCuda = false;
  const float* x = nullptr;
  float* y = nullptr;
  std::int64_t count = 0;
  bool past_caches = false;
};
template <class I>
void kernel(I, const CopyLoop&);

}  // namespace twinlens::bench
