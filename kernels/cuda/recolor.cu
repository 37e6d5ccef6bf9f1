#include "kernels/cuda/device/any.cuh"
#include "kernels/cuda/device/launch.cuh"

#include "twinlens/kernels/recolor.h"

namespace twinlens {
namespace {

using namespace cuda;

__device__ std::uint8_t clip8(float v) { return static_cast<std::uint8_t>(v < 0.0F ? 0.0F : v > 255.0F ? 255.0F : v + 0.5F); }

__global__ void recolor_kernel(Recolor a) {
  const std::int64_t i = std::int64_t{blockIdx.x} * blockDim.x + threadIdx.x;
  if (i >= a.count) return;
  const float r = a.x[3 * i], g = a.x[3 * i + 1], b = a.x[3 * i + 2];
  const float luma = a.luma == nullptr ? 1.0F : *a.luma;
  for (int c = 0; c < 3; ++c) a.y[3 * i + c] = clip8(a.m[3 * c] * r + a.m[3 * c + 1] * g + a.m[3 * c + 2] * b + a.b[c] * luma);
}

// One block, which is enough for a picture of a model's size.
constexpr int kLumaThreads = kWarp * kWarp;

__device__ long long sum_of_warp(long long x) {
  for (int step = kWarp / 2; step > 0; step /= 2) x += __shfl_down_sync(~0U, x, step);
  return x;
}

__global__ void __launch_bounds__(kLumaThreads) mean_luma_kernel(MeanLuma a) {
  using M = MeanLuma;
  __shared__ long long of_warp[kWarp];
  long long sum = 0;
  for (std::int64_t i = threadIdx.x; i < a.count; i += kLumaThreads)
    sum += M::kRed * a.x[3 * i] + M::kGreen * a.x[3 * i + 1] + M::kBlue * a.x[3 * i + 2];
  sum = sum_of_warp(sum);
  if (threadIdx.x % kWarp == 0) of_warp[threadIdx.x / kWarp] = sum;
  __syncthreads();
  if (threadIdx.x >= kWarp) return;
  sum = sum_of_warp(of_warp[threadIdx.x]);
  if (threadIdx.x == 0) *a.mean = static_cast<float>(static_cast<double>(sum) / static_cast<double>(M::kWhole * a.count));
}

__device__ float pixel_of(const WarpAffine& a, std::int64_t r, std::int64_t c, int channel) {
  const bool inside = r >= 0 && r < a.height && c >= 0 && c < a.width;
  return static_cast<float>(inside ? a.x[(r * a.width + c) * 3 + channel] : a.fill);
}

__global__ void warp_kernel(WarpAffine a, std::int64_t count) {
  const std::int64_t i = std::int64_t{blockIdx.x} * blockDim.x + threadIdx.x;
  if (i >= count) return;
  const Place at = place_of(i, a.width);
  const auto c = static_cast<float>(at.pack), r = static_cast<float>(at.row);
  const float x = a.m[0] * c + a.m[1] * r + a.m[2], y = a.m[3] * c + a.m[4] * r + a.m[5];
  const float left = floorf(x), top = floorf(y), dx = x - left, dy = y - top;
  const auto ix = static_cast<std::int64_t>(left), iy = static_cast<std::int64_t>(top);
  for (int channel = 0; channel < 3; ++channel) {
    const float above = pixel_of(a, iy, ix, channel) * (1.0F - dx) + pixel_of(a, iy, ix + 1, channel) * dx;
    const float below = pixel_of(a, iy + 1, ix, channel) * (1.0F - dx) + pixel_of(a, iy + 1, ix + 1, channel) * dx;
    a.y[3 * i + channel] = clip8(above * (1.0F - dy) + below * dy);
  }
}

}  // namespace

void launch(Cuda, Stream& stream, const Recolor& a) {
  const ElementLaunch geometry = element_launch(a.count, 1);
  if (geometry.blocks != 0) recolor_kernel<<<geometry.blocks, ElementLaunch::kThreads, 0, native(stream)>>>(a);
}

void launch(Cuda, Stream& stream, const MeanLuma& a) { mean_luma_kernel<<<1, kLumaThreads, 0, native(stream)>>>(a); }

void launch(Cuda, Stream& stream, const WarpAffine& a) {
  const std::int64_t count = a.height * a.width;
  const ElementLaunch geometry = element_launch(count, 1);
  if (geometry.blocks != 0) warp_kernel<<<geometry.blocks, ElementLaunch::kThreads, 0, native(stream)>>>(a, count);
}

}  // namespace twinlens
