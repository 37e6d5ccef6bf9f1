#include "kernels/cuda/device/any.cuh"
#include "kernels/cuda/device/launch.cuh"

#include "twinlens/kernels/patchify.h"

namespace twinlens {
namespace {

using namespace cuda;

// Where W neighbouring pixels of one patch row lie: in the picture, and in the row of their patch (of channel 0).
struct Run {
  std::int64_t pixel, row, column;
};

// Runs are numbered along the picture's rows.
template <int W>
__device__ Run run_of(std::int64_t i, std::int64_t width, std::int64_t patch) {
  const Place at = place_of(i, width / W);            // picture row (over all pictures, whose heights are whole patches), run
  const Place down = place_of(at.row, patch);         // row of patches, row in the patch
  const Place across = place_of(at.pack * W, patch);  // patch in the row of patches, column in the patch
  return {at.row * width + at.pack * W, down.row * (width / patch) + across.row, down.pack * patch + across.pack};
}

// 3 W interleaved values; words where the picture starts at a whole one (its pixels are taken W at a time).
template <int W>
__device__ void load_pixels(const ConstBuffer& x, std::int64_t pixel, bool aligned, float (&v)[3 * W]) {
  if (x.dtype == DType::u8) {
    const std::uint8_t* p = static_cast<const std::uint8_t*>(x.data) + 3 * pixel;
    if constexpr (W == 4) {
      if (aligned) {
#pragma unroll
        for (int j = 0; j < 3; ++j) {
          const unsigned word = reinterpret_cast<const unsigned*>(p)[j];
#pragma unroll
          for (int k = 0; k < 4; ++k) v[4 * j + k] = static_cast<float>(word >> (8 * k) & 0xFFU);
        }
        return;
      }
    }
#pragma unroll
    for (int k = 0; k < 3 * W; ++k) v[k] = static_cast<float>(p[k]);
  } else {
    const float* p = static_cast<const float*>(x.data) + 3 * pixel;
    if constexpr (W == 4) {
      load_pack(p, 3 * W, aligned, v);
    } else {
#pragma unroll
      for (int k = 0; k < 3 * W; ++k) v[k] = p[k];
    }
  }
}

template <int W>
__global__ void forward_kernel(PatchifyForward a, std::int64_t count, bool x_aligned, bool y_aligned) {
  const std::int64_t i = std::int64_t{blockIdx.x} * blockDim.x + threadIdx.x;
  if (i >= count) return;
  const Run run = run_of<W>(i, a.width, a.patch);
  float v[3 * W], plane[W];
  load_pixels<W>(a.x, run.pixel, x_aligned, v);
#pragma unroll
  for (int c = 0; c < 3; ++c) {
#pragma unroll
    for (int k = 0; k < W; ++k) plane[k] = v[3 * k + c] * a.scale[c] + a.shift[c];
    store_any(plane, a.y.data, a.y.dtype, run.row * a.y.stride + c * a.patch * a.patch + run.column, W, y_aligned);
  }
}

template <int W>
__global__ void backward_kernel(PatchifyBackward a, std::int64_t count, bool dy_aligned) {
  const std::int64_t i = std::int64_t{blockIdx.x} * blockDim.x + threadIdx.x;
  if (i >= count) return;
  const Run run = run_of<W>(i, a.width, a.patch);
  float plane[3][W];
#pragma unroll
  for (int c = 0; c < 3; ++c) {
    load_any(a.dy.data, a.dy.dtype, run.row * a.dy.stride + c * a.patch * a.patch + run.column, W, dy_aligned, plane[c]);
  }
  float* dx = a.dx + 3 * run.pixel;
#pragma unroll
  for (int k = 0; k < W; ++k) {
#pragma unroll
    for (int c = 0; c < 3; ++c) dx[3 * k + c] = plane[c][k];
  }
}

// Calls f(integral constant W) with the pixels that a thread takes.
template <class F>
void visit_width(std::int64_t patch, F&& f) {
  if (patch % 4 == 0) {
    f(std::integral_constant<int, 4>{});
  } else if (patch % 2 == 0) {
    f(std::integral_constant<int, 2>{});
  } else {
    f(std::integral_constant<int, 1>{});
  }
}

}  // namespace

void launch(Cuda, Stream& stream, const PatchifyForward& a) {
  visit_width(a.patch, [&]<int W>(std::integral_constant<int, W>) {
    const std::int64_t count = a.x.count / 3 / W;
    const ElementLaunch geometry = element_launch(count, 1);
    if (geometry.blocks == 0) return;
    const bool x_aligned = packs_are_aligned(a.x.data, 0, 1, a.x.dtype == DType::u8 ? 4 : 16);
    const bool y_aligned = packs_are_aligned(a.y.data, a.y.stride, size_of(a.y.dtype), W);
    forward_kernel<W><<<geometry.blocks, ElementLaunch::kThreads, 0, native(stream)>>>(a, count, x_aligned, y_aligned);
  });
}

void launch(Cuda, Stream& stream, const PatchifyBackward& a) {
  visit_width(a.patch, [&]<int W>(std::integral_constant<int, W>) {
    const std::int64_t count = a.dy.rows * a.patch * a.patch / W;
    const ElementLaunch geometry = element_launch(count, 1);
    if (geometry.blocks == 0) return;
    const bool aligned = packs_are_aligned(a.dy.data, a.dy.stride, size_of(a.dy.dtype), W);
    backward_kernel<W><<<geometry.blocks, ElementLaunch::kThreads, 0, native(stream)>>>(a, count, aligned);
  });
}

}  // namespace twinlens
