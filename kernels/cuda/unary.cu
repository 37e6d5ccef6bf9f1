#include "kernels/cuda/device/element.cuh"
#include "kernels/cuda/device/functions.cuh"
#include "kernels/cuda/device/launch.cuh"
#include "kernels/cuda/device/short_functions.cuh"

#include "twinlens/kernels/unary.h"

namespace twinlens {
namespace {

using namespace cuda;

// The function is chosen in the kernel, once for a pack: a branch that all threads take alike costs nothing beside the memory.
template <class T>
__global__ void __launch_bounds__(256) forward_kernel(UnaryForward a, bool aligned) {
  constexpr int W = kPack<T>;
  const std::int64_t i = (std::int64_t{blockIdx.x} * blockDim.x + threadIdx.x) * W;
  if (i >= a.y.count) return;
  const std::int64_t left = a.y.count - i;
  float v[W];
  load_pack(a.x.as<T>() + i, left, aligned, v);
  Activation activation = Activation::none;
  if (sizeof(T) == 2 && as_activation(a.function, activation)) {
    apply_short_activation(activation, v);
  } else {
    apply_function(a.function, a.low, a.high, v);
  }
  store_pack(v, a.y.as<T>() + i, left, aligned);
}

template <class T>
__global__ void __launch_bounds__(256) backward_kernel(UnaryBackward a, bool aligned) {
  constexpr int W = kPack<T>;
  const std::int64_t i = (std::int64_t{blockIdx.x} * blockDim.x + threadIdx.x) * W;
  if (i >= a.dx.count) return;
  const std::int64_t left = a.dx.count - i;
  float v[W], dy[W];
  load_pack(a.saved.as<T>() + i, left, aligned, v);
  load_pack(a.dy.as<T>() + i, left, aligned, dy);
  Activation activation = Activation::none;
  if (sizeof(T) == 2 && as_activation(a.function, activation)) {
    apply_short_slope(activation, v);
  } else {
    apply_slope(a.function, a.low, a.high, v);
  }
  // Outside of a clamp, or through a closed relu, nothing passes, not even infinity and NaN.
  const bool gate = a.function == UnaryFunction::clamp || a.function == UnaryFunction::relu;
#pragma unroll
  for (int k = 0; k < W; ++k) v[k] = gate && v[k] == 0.0F ? 0.0F : dy[k] * v[k];
  store_pack(v, a.dx.as<T>() + i, left, aligned);
}

}  // namespace

void launch(Cuda, Stream& stream, const UnaryForward& a) {
  const int pack = pack_of(a.x.dtype);
  const ElementLaunch geometry = element_launch(a.y.count, pack);
  if (geometry.blocks == 0) return;
  const bool aligned = is_aligned(a.x.data) && is_aligned(a.y.data);
  visit_cuda_float(a.x.dtype, [&]<class T>(TypeTag<T>) {
    forward_kernel<T><<<geometry.blocks, ElementLaunch::kThreads, 0, native(stream)>>>(a, aligned);
  });
}

void launch(Cuda, Stream& stream, const UnaryBackward& a) {
  const int pack = pack_of(a.dx.dtype);
  const ElementLaunch geometry = element_launch(a.dx.count, pack);
  if (geometry.blocks == 0) return;
  const bool aligned = is_aligned(a.saved.data) && is_aligned(a.dy.data) && is_aligned(a.dx.data);
  visit_cuda_float(a.dx.dtype, [&]<class T>(TypeTag<T>) {
    backward_kernel<T><<<geometry.blocks, ElementLaunch::kThreads, 0, native(stream)>>>(a, aligned);
  });
}

}  // namespace twinlens
