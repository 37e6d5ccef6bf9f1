#include "kernels/cuda/device/launch.cuh"

#include "twinlens/kernels/tone.h"

namespace twinlens {
namespace cuda {
namespace {

__global__ void curve_kernel(const std::uint8_t* x, std::uint8_t* y, std::int64_t count, const std::uint8_t* curve) {
  const std::int64_t i = std::int64_t{blockIdx.x} * ElementLaunch::kThreads + threadIdx.x;
  if (i < count) y[i] = curve[x[i]];
}

// One thread for a value of a pixel.
__global__ void sharpness_kernel(const Sharpness a) {
  const std::int64_t i = std::int64_t{blockIdx.x} * ElementLaunch::kThreads + threadIdx.x, row_bytes = 3 * a.width;
  if (i >= a.height * row_bytes) return;
  const std::int64_t r = i / row_bytes, at = i % row_bytes;
  const std::int64_t left = at < 3 ? at : at - 3, right = at + 3 < row_bytes ? at + 3 : at;
  int sum = 0;
  for (std::int64_t dr = -1; dr <= 1; ++dr) {
    const std::int64_t row = r + dr < 0 || r + dr >= a.height ? r : r + dr;
    const std::uint8_t* x = a.x + row * row_bytes;
    sum += x[left] + x[at] + x[right];
  }
  const float mean = static_cast<float>(sum) * (1.0F / 9.0F), x = a.x[i], v = mean + a.factor * (x - mean);
  a.y[i] = static_cast<std::uint8_t>(v < 0.0F ? 0.0F : v > 255.0F ? 255.0F : v + 0.5F);
}

}  // namespace
}  // namespace cuda

void launch(Cuda, Stream& stream, const ToneCurve& a) {
  const cuda::ElementLaunch launch = cuda::element_launch(a.count, 1);
  if (launch.blocks == 0) return;
  cuda::curve_kernel<<<launch.blocks, launch.kThreads, 0, cuda::native(stream)>>>(a.x, a.y, a.count, a.curve);
}

void launch(Cuda, Stream& stream, const Sharpness& a) {
  const cuda::ElementLaunch launch = cuda::element_launch(3 * a.height * a.width, 1);
  if (launch.blocks == 0) return;
  cuda::sharpness_kernel<<<launch.blocks, launch.kThreads, 0, cuda::native(stream)>>>(a);
}

}  // namespace twinlens
