#include "kernels/cuda/device/broadcast.cuh"
#include "kernels/cuda/device/element.cuh"
#include "kernels/cuda/device/launch.cuh"

#include "twinlens/kernels/binary.h"

namespace twinlens {
namespace {

using namespace cuda;

__device__ float value_of(BinaryFunction function, float a, float b) {
  switch (function) {
    case BinaryFunction::add: return a + b;
    case BinaryFunction::sub: return a - b;
    case BinaryFunction::mul: return a * b;
    case BinaryFunction::div: return a / b;
    case BinaryFunction::maximum: return b != b ? b : (a < b ? b : a);  // NaN if either is
    case BinaryFunction::minimum: return b != b ? b : (b < a ? b : a);
    case BinaryFunction::share_above: return a < b ? 0.0F : (a == b ? 0.5F : 1.0F);
    case BinaryFunction::share: return b == 0.0F ? 0.0F : a * b;
  }
  return 0.0F;
}

// W elements of an operand from its element `at` on: neighbours, or one of them spread where the innermost stride is 0.
template <int W, class T>
__device__ void load_operand(const T* x, std::int64_t at, bool spread, float (&v)[W]) {
  if (spread) {
    const float value = to_float(x[at]);
#pragma unroll
    for (int k = 0; k < W; ++k) v[k] = value;
  } else {
    load_pack(x + at, W, true, v);
  }
}

// A thread for W neighbouring elements of y, which lie in one run of the innermost dimension.
template <int W, class X, class Y>
__global__ void __launch_bounds__(256) binary_kernel(BinaryFunction function, const X* a, const X* b, Y* y, StridedPlan<2> plan) {
  const std::int64_t i = (std::int64_t{blockIdx.x} * blockDim.x + threadIdx.x) * W;
  if (i >= plan.count) return;
  std::int64_t at[2];
  strided_offsets(plan, i, at);
  float va[W], vb[W];
  load_operand(a, at[0], plan.strides[0][plan.rank - 1] == 0, va);
  load_operand(b, at[1], plan.strides[1][plan.rank - 1] == 0, vb);
#pragma unroll
  for (int k = 0; k < W; ++k) va[k] = value_of(function, va[k], vb[k]);
  store_pack(va, y + i, W, true);
}

template <class X, class Y>
void compute(Stream& stream, const Binary& c) {
  const StridedPlan<2> plan = plan_strided<2>({&c.a, &c.b});
  constexpr int W = kPack<X>;
  const auto start = [&](auto pack) {
    constexpr int kOfThread = decltype(pack)::value;
    const ElementLaunch geometry = element_launch(plan.count, kOfThread);
    if (geometry.blocks == 0) return;
    binary_kernel<kOfThread><<<geometry.blocks, ElementLaunch::kThreads, 0, native(stream)>>>(
        c.function, static_cast<const X*>(c.a.data), static_cast<const X*>(c.b.data), c.y.as<Y>(), plan);
  };
  if (moves_in_packs(plan, W, sizeof(X), {c.a.data, c.b.data}) && is_aligned(c.y.data)) {
    start(Lanes<W>{});
  } else {
    start(Lanes<1>{});
  }
}

// Elements are compared as floats or as 64-bit integers, which hold every element type exactly.
__device__ float comparable(float x) { return x; }
__device__ float comparable(bf16 x) { return to_float(x); }
__device__ float comparable(f16 x) { return to_float(x); }
__device__ std::int64_t comparable(std::int64_t x) { return x; }
__device__ std::int64_t comparable(std::int32_t x) { return x; }
__device__ std::int64_t comparable(std::uint8_t x) { return x; }
__device__ std::int64_t comparable(Boolean x) { return x.value != 0 ? 1 : 0; }

template <class T>
__global__ void __launch_bounds__(256) compare_kernel(Comparison comparison, const T* a, const T* b, std::uint8_t* y, StridedPlan<2> plan) {
  const std::int64_t i = std::int64_t{blockIdx.x} * blockDim.x + threadIdx.x;
  if (i >= plan.count) return;
  std::int64_t at[2];
  strided_offsets(plan, i, at);
  const auto va = comparable(a[at[0]]), vb = comparable(b[at[1]]);
  y[i] = (comparison == Comparison::less ? va < vb : va == vb) ? 1 : 0;
}

template <class T>
void compare(Stream& stream, const Compare& c) {
  const StridedPlan<2> plan = plan_strided<2>({&c.a, &c.b});
  const ElementLaunch geometry = element_launch(plan.count, 1);
  if (geometry.blocks == 0) return;
  compare_kernel<<<geometry.blocks, ElementLaunch::kThreads, 0, native(stream)>>>(
      c.comparison, static_cast<const T*>(c.a.data), static_cast<const T*>(c.b.data), c.y.as<std::uint8_t>(), plan);
}

}  // namespace

void launch(Cuda, Stream& stream, const Binary& c) {
  visit_cuda_float(c.a.dtype, [&]<class X>(TypeTag<X>) {
    if (c.y.dtype == c.a.dtype) {
      compute<X, X>(stream, c);
    } else {
      compute<X, float>(stream, c);
    }
  });
}

void launch(Cuda, Stream& stream, const Compare& c) {
  switch (c.a.dtype) {
    case DType::f32: return compare<float>(stream, c);
    case DType::bf16: return compare<bf16>(stream, c);
    case DType::f16: return compare<f16>(stream, c);
    case DType::i64: return compare<std::int64_t>(stream, c);
    case DType::i32: return compare<std::int32_t>(stream, c);
    case DType::u8: return compare<std::uint8_t>(stream, c);
    case DType::boolean: return compare<Boolean>(stream, c);
  }
}

}  // namespace twinlens
