#include "kernels/cuda/device/element.cuh"
#include "kernels/cuda/device/launch.cuh"

#include "twinlens/kernels/accumulate.h"

namespace twinlens {
namespace {

using namespace cuda;

constexpr int kPerThread = 8;

template <class X, class Y>
__global__ void accumulate_kernel(const X* x, Y* y, std::int64_t count, float factor, bool aligned) {
  const std::int64_t i = (std::int64_t{blockIdx.x} * blockDim.x + threadIdx.x) * kPerThread;
  if (i >= count) return;
  float a[kPerThread], b[kPerThread];
  load_pack(x + i, count - i, aligned, a);
  load_pack(y + i, count - i, aligned, b);
#pragma unroll
  for (int k = 0; k < kPerThread; ++k) b[k] += factor * a[k];
  store_pack(b, y + i, count - i, aligned);
}

}  // namespace

void launch(Cuda, Stream& stream, const Accumulate& a) {
  const ElementLaunch geometry = element_launch(a.y.count, kPerThread);
  if (geometry.blocks == 0) return;
  const bool aligned =
      packs_are_aligned(a.x.data, 0, size_of(a.x.dtype), kPerThread) && packs_are_aligned(a.y.data, 0, size_of(a.y.dtype), kPerThread);
  visit_cuda_float(a.x.dtype, [&]<class X>(TypeTag<X>) {
    visit_cuda_float(a.y.dtype, [&]<class Y>(TypeTag<Y>) {
      accumulate_kernel<<<geometry.blocks, ElementLaunch::kThreads, 0, native(stream)>>>(a.x.as<X>(), a.y.as<Y>(), a.y.count, a.factor,
                                                                                         aligned);
    });
  });
}

}  // namespace twinlens
