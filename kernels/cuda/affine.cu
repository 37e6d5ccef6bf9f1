#include "kernels/cuda/device/element.cuh"
#include "kernels/cuda/device/launch.cuh"

#include "twinlens/kernels/affine.h"

namespace twinlens {
namespace {

using namespace cuda;

template <class T>
__global__ void __launch_bounds__(256) affine_kernel(const T* x, T* y, std::int64_t count, float scale, float shift, bool aligned) {
  constexpr int W = kPack<T>;
  const std::int64_t i = (std::int64_t{blockIdx.x} * blockDim.x + threadIdx.x) * W;
  if (i >= count) return;
  float v[W];
  load_pack(x + i, count - i, aligned, v);
#pragma unroll
  for (int k = 0; k < W; ++k) v[k] = fmaf(scale, v[k], shift);
  store_pack(v, y + i, count - i, aligned);
}

}  // namespace

void launch(Cuda, Stream& stream, const Affine& a) {
  const ElementLaunch geometry = element_launch(a.y.count, pack_of(a.x.dtype));
  if (geometry.blocks == 0) return;
  const bool aligned = is_aligned(a.x.data) && is_aligned(a.y.data);
  visit_cuda_float(a.x.dtype, [&]<class T>(TypeTag<T>) {
    affine_kernel<<<geometry.blocks, ElementLaunch::kThreads, 0, native(stream)>>>(a.x.as<T>(), a.y.as<T>(), a.y.count, a.scale, a.shift,
                                                                                   aligned);
  });
}

}  // namespace twinlens
