#include "kernels/cuda/device/any.cuh"
#include "kernels/cuda/device/launch.cuh"

#include "twinlens/kernels/resize.h"

namespace twinlens {
namespace {

using namespace cuda;

constexpr int kBits = 22;

__device__ std::uint8_t clip8(std::int32_t v) {
  v >>= kBits;
  return static_cast<std::uint8_t>(v < 0 ? 0 : v > 255 ? 255 : v);
}

// One result pixel of a pass: the taps lie `step` bytes apart from x on.
__device__ void filter_pixel(const ResizeAxis& axis, std::int64_t i, const std::uint8_t* x, std::int64_t step, std::uint8_t* y) {
  const std::int32_t* weights = axis.weights + i * axis.stride;
  std::int32_t sum[3] = {1 << (kBits - 1), 1 << (kBits - 1), 1 << (kBits - 1)};
  for (std::int32_t k = 0; k < axis.taps[i]; ++k) {
    const std::uint8_t* pixel = x + k * step;
    for (int c = 0; c < 3; ++c) sum[c] += weights[k] * pixel[c];
  }
  for (int c = 0; c < 3; ++c) y[c] = clip8(sum[c]);
}

// `rows` rows of `width` pixels of a pass along the axis; x rows are x_stride bytes apart.
struct Pass {
  ResizeAxis axis;
  const std::uint8_t* x;
  std::int64_t x_stride, rows, width;
  std::uint8_t* y;
};

__global__ void horizontal_kernel(Pass p, std::int64_t count) {
  const std::int64_t i = std::int64_t{blockIdx.x} * blockDim.x + threadIdx.x;
  if (i >= count) return;
  const Place at = place_of(i, p.width);
  filter_pixel(p.axis, at.pack, p.x + at.row * p.x_stride + std::int64_t{p.axis.begin[at.pack]} * 3, 3, p.y + 3 * i);
}

// `first` is the row of the picture with which x begins.
__global__ void vertical_kernel(Pass p, std::int64_t first, std::int64_t count) {
  const std::int64_t i = std::int64_t{blockIdx.x} * blockDim.x + threadIdx.x;
  if (i >= count) return;
  const Place at = place_of(i, p.width);
  filter_pixel(p.axis, at.row, p.x + (p.axis.begin[at.row] - first) * p.x_stride + at.pack * 3, p.x_stride, p.y + 3 * i);
}

void run_horizontal(Stream& stream, const Pass& p) {
  const ElementLaunch geometry = element_launch(p.rows * p.width, 1);
  if (geometry.blocks != 0) horizontal_kernel<<<geometry.blocks, ElementLaunch::kThreads, 0, native(stream)>>>(p, p.rows * p.width);
}

void run_vertical(Stream& stream, const Pass& p, std::int64_t first) {
  const ElementLaunch geometry = element_launch(p.rows * p.width, 1);
  if (geometry.blocks != 0) vertical_kernel<<<geometry.blocks, ElementLaunch::kThreads, 0, native(stream)>>>(p, first, p.rows * p.width);
}

}  // namespace

void launch(Cuda, Stream& stream, const Resize& a) {
  const std::int64_t width = a.horizontal.count, height = a.vertical.count;
  if (a.vertical_first) {
    run_vertical(stream, {a.vertical, a.x, a.x_stride, height, a.x_width, a.scratch}, 0);
    run_horizontal(stream, {a.horizontal, a.scratch, a.x_width * 3, height, width, a.y});
  } else {
    run_horizontal(stream, {a.horizontal, a.x + a.first_row * a.x_stride, a.x_stride, a.row_count, width, a.scratch});
    run_vertical(stream, {a.vertical, a.scratch, width * 3, height, width, a.y}, a.first_row);
  }
}

}  // namespace twinlens
