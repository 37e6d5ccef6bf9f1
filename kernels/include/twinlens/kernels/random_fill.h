#pragma once
// Fills a buffer with random numbers that are a pure function of (key, index): uniform in [a, a + b), or normal with mean a and standard
// deviation b by Box & Muller (1958) in double precision.

#include "twinlens/kernels/run.h"
#include "twinlens/kernels/view.h"

namespace twinlens {

struct RandomFill {
  static constexpr const char* kName = "random_fill";
  static constexpr bool kCuda = true;
  Buffer y;  // f32
  bool normal = false;
  double a = 0.0, b = 1.0;
  std::uint64_t key = 0;
};
template <class I>
void kernel(I, const RandomFill&);
void launch(Cuda, Stream&, const RandomFill&);

}  // namespace twinlens
