#include "kernels/cuda/device/element.cuh"
#include "kernels/cuda/device/launch.cuh"

#include "twinlens/kernels/softsign.h"

namespace twinlens {
namespace {

using namespace cuda;

template <class T>
__global__ void forward_kernel(const T* x, T* y, std::int64_t count) {
  const std::int64_t i = std::int64_t{blockIdx.x} * blockDim.x + threadIdx.x;
  if (i >= count) return;
  const float v = to_float(x[i]);
  y[i] = from_float<T>(v / (1.0F + fabsf(v)));
}

template <class T, class D>
__global__ void backward_kernel(const T* x, const D* dy, T* dx, std::int64_t count) {
  const std::int64_t i = std::int64_t{blockIdx.x} * blockDim.x + threadIdx.x;
  if (i >= count) return;
  const float root = 1.0F + fabsf(to_float(x[i]));
  dx[i] = from_float<T>(to_float(dy[i]) / (root * root));
}

}  // namespace

void launch(Cuda, Stream& stream, const SoftsignForward& a) {
  const ElementLaunch geometry = element_launch(a.y.count, 1);
  if (geometry.blocks == 0) return;
  visit_cuda_float(a.x.dtype, [&]<class T>(TypeTag<T>) {
    forward_kernel<<<geometry.blocks, ElementLaunch::kThreads, 0, native(stream)>>>(a.x.as<T>(), a.y.as<T>(), a.y.count);
  });
}

void launch(Cuda, Stream& stream, const SoftsignBackward& a) {
  const ElementLaunch geometry = element_launch(a.dx.count, 1);
  if (geometry.blocks == 0) return;
  visit_cuda_float(a.x.dtype, [&]<class T>(TypeTag<T>) {
    visit_cuda_float(a.dy.dtype, [&]<class D>(TypeTag<D>) {
      backward_kernel<<<geometry.blocks, ElementLaunch::kThreads, 0, native(stream)>>>(a.x.as<T>(), a.dy.as<D>(), a.dx.as<T>(), a.dx.count);
    });
  });
}

}  // namespace twinlens
