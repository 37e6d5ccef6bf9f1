#include <cmath>

#include "kernels/cuda/device/launch.cuh"

#include "twinlens/kernels/philox.h"
#include "twinlens/kernels/random_fill.h"

namespace twinlens {
namespace {

using namespace cuda;

// A thread for the four numbers of one block of Philox, as on the CPU; in double, so that both agree but for a rare last bit.
__global__ void __launch_bounds__(256) fill_kernel(RandomFill a, float last) {
  constexpr double kTwoPi = 6.283185307179586477;
  const std::int64_t block = std::int64_t{blockIdx.x} * blockDim.x + threadIdx.x;
  if (4 * block >= a.y.count) return;
  const Philox4 bits = philox(a.key, 0, static_cast<std::uint64_t>(block));
  double values[4];
#pragma unroll
  for (int i = 0; i < 4; ++i) values[i] = (static_cast<double>(bits.v[i]) + 0.5) * 0x1p-32;  // (0, 1)
  if (a.normal) {
#pragma unroll
    for (int i = 0; i < 4; i += 2) {
      const double radius = sqrt(-2.0 * log(values[i]));
      double sine, cosine;
      sincos(kTwoPi * values[i + 1], &sine, &cosine);
      values[i] = radius * cosine;
      values[i + 1] = radius * sine;
    }
  }
#pragma unroll
  for (int i = 0; i < 4; ++i) {
    const auto value = static_cast<float>(a.a + a.b * values[i]);
    if (4 * block + i < a.y.count) a.y.as<float>()[4 * block + i] = !a.normal && value > last ? last : value;
  }
}

}  // namespace

void launch(Cuda, Stream& stream, const RandomFill& a) {
  const ElementLaunch geometry = element_launch(a.y.count, 4);
  if (geometry.blocks == 0) return;
  // The largest float below a + b, where a number close to it would be rounded up to it.
  auto last = static_cast<float>(a.a + a.b);
  if (static_cast<double>(last) >= a.a + a.b) last = std::nextafterf(last, static_cast<float>(a.a));
  fill_kernel<<<geometry.blocks, ElementLaunch::kThreads, 0, native(stream)>>>(a, last);
}

}  // namespace twinlens
