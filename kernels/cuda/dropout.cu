#include "kernels/cuda/device/element.cuh"
#include "kernels/cuda/device/launch.cuh"
#include "kernels/cuda/device/rows.cuh"
#include "kernels/cuda/device/stores.cuh"

#include "twinlens/kernels/dropout.h"
#include "twinlens/kernels/philox.h"

namespace twinlens {
namespace {

using namespace cuda;

constexpr int W = 4;  // elements of a thread: they need one block of Philox, or two

__device__ std::uint32_t word(const Philox4& bits, std::uint64_t at) {
  const auto i = static_cast<unsigned>(at & 3U);
  return i < 2 ? (i == 0 ? bits.v[0] : bits.v[1]) : (i == 2 ? bits.v[2] : bits.v[3]);
}

template <class T>
__global__ void __launch_bounds__(256)
    dropout_kernel(DropoutRows a, std::int64_t packs_of_row, std::uint64_t limit, float scale, bool aligned) {
  const std::int64_t t = std::int64_t{blockIdx.x} * blockDim.x + threadIdx.x;
  const std::int64_t r = t / packs_of_row, i = (t - r * packs_of_row) * W, c = a.x.cols;
  if (r >= valid_rows(a.x)) return;
  const std::uint64_t key = mix(mix(a.step->seed, a.step->step), a.site);
  const auto sample = static_cast<std::uint64_t>(a.sample != nullptr ? a.sample[r] : r);
  const auto first = static_cast<std::uint64_t>((a.position != nullptr ? a.position[r] : 0) * c + i);
  const Philox4 low = philox(key, sample, first >> 2);
  const Philox4 high = (first & 3U) != 0 ? philox(key, sample, (first >> 2) + 1) : low;
  float v[W];
  load_pack(row_of<T>(a.x, r) + i, c - i, aligned, v);
#pragma unroll
  for (int k = 0; k < W; ++k) {
    const std::uint64_t at = first + static_cast<std::uint64_t>(k);
    const std::uint32_t number = word(at >> 2 == first >> 2 ? low : high, at);
    v[k] = number >= limit ? v[k] * scale : 0.0F;
  }
  if (aligned && c - i >= W) {
    store_whole(v, row_of<T>(a.y, r) + i);
  } else {
    store_pack(v, row_of<T>(a.y, r) + i, c - i, false);
  }
}

}  // namespace

void launch(Cuda, Stream& stream, const DropoutRows& a) {
  const std::int64_t packs_of_row = ceil_div(a.x.cols, W);
  const ElementLaunch geometry = element_launch(a.x.rows * packs_of_row, 1);
  if (geometry.blocks == 0) return;
  const auto limit = static_cast<std::uint64_t>(a.p * 4294967296.0);  // a number below it is dropped
  const auto scale = static_cast<float>(1.0 / (1.0 - a.p));
  const bool aligned = rows_are_aligned(a.x, W) && rows_are_aligned(a.y, W);
  visit_cuda_float(a.x.dtype, [&]<class T>(TypeTag<T>) {
    dropout_kernel<T><<<geometry.blocks, ElementLaunch::kThreads, 0, native(stream)>>>(a, packs_of_row, limit, scale, aligned);
  });
}

}  // namespace twinlens
