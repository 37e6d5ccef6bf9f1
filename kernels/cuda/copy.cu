#include "kernels/cpu/copy_plan.h"
#include "kernels/cuda/copy_words.h"
#include "kernels/cuda/device/element.cuh"
#include "kernels/cuda/device/launch.cuh"
#include "kernels/cuda/device/pixels.cuh"

#include "twinlens/kernels/copy.h"

namespace twinlens {
namespace {

using namespace cuda;

// Where element i of the plan lies on both sides. Index is 32 bits wide where it can be: division is what this costs.
template <class Index>
__device__ void offsets(const CopyPlan& p, Index i, std::int64_t& ox, std::int64_t& oy) {
  ox = oy = 0;
  for (int d = p.rank - 1; d > 0; --d) {
    const Index size = static_cast<Index>(p.shape[d]), rest = i / size;
    const std::int64_t at = static_cast<std::int64_t>(i - rest * size);
    ox += at * p.sx[d];
    oy += at * p.sy[d];
    i = rest;
  }
  ox += static_cast<std::int64_t>(i) * p.sx[0];
  oy += static_cast<std::int64_t>(i) * p.sy[0];
}

// The element types of copies that need no detour: words of one size, or floats.
template <class X, class Y>
__device__ Y converted(X x) {
  if constexpr (__is_same(X, Y)) {
    return x;
  } else {
    return from_float<Y>(to_float(x));
  }
}

template <class Index, class X, class Y>
__global__ void strided_kernel(const X* x, Y* y, CopyPlan p, Index count) {
  const Index i = static_cast<Index>(blockIdx.x) * ElementLaunch::kThreads + threadIdx.x;
  if (i >= count) return;
  std::int64_t ox, oy;
  offsets(p, i, ox, oy);
  y[oy] = converted<X, Y>(x[ox]);
}

constexpr int kPerThread = 8;

template <class X, class Y>
__global__ void dense_convert_kernel(const X* x, Y* y, std::int64_t count, bool aligned) {
  const std::int64_t i = (std::int64_t{blockIdx.x} * blockDim.x + threadIdx.x) * kPerThread;
  if (i >= count) return;
  float v[kPerThread];
  load_pack(x + i, count - i, aligned, v);
  store_pack(v, y + i, count - i, aligned);
}

// Conversions with an integer or a bool go through double, as on the CPU: it holds every i32, u8, bool and float exactly, and i64 up to
// 2^53. None of them is on the training path.
__device__ double read_any(const void* x, DType t, std::int64_t i) {
  switch (t) {
    case DType::f32: return static_cast<const float*>(x)[i];
    case DType::bf16: return to_float(static_cast<const bf16*>(x)[i]);
    case DType::f16: return to_float(static_cast<const f16*>(x)[i]);
    case DType::i64: return static_cast<double>(static_cast<const std::int64_t*>(x)[i]);
    case DType::i32: return static_cast<const std::int32_t*>(x)[i];
    case DType::u8: return static_cast<const std::uint8_t*>(x)[i];
    case DType::boolean: return static_cast<const std::uint8_t*>(x)[i] != 0 ? 1.0 : 0.0;
  }
  return 0.0;
}

__host__ __device__ void write_any(void* y, DType t, std::int64_t i, double value) {
  switch (t) {
    case DType::f32: static_cast<float*>(y)[i] = static_cast<float>(value); break;
    case DType::bf16: static_cast<bf16*>(y)[i] = from_float<bf16>(static_cast<float>(value)); break;
    case DType::f16: static_cast<f16*>(y)[i] = from_float<f16>(static_cast<float>(value)); break;
    case DType::i64: static_cast<std::int64_t*>(y)[i] = to_integer<std::int64_t>(value); break;
    case DType::i32: static_cast<std::int32_t*>(y)[i] = to_integer<std::int32_t>(value); break;
    case DType::u8: static_cast<std::uint8_t*>(y)[i] = to_integer<std::uint8_t>(value); break;
    case DType::boolean: static_cast<std::uint8_t*>(y)[i] = value != 0.0 ? 1 : 0; break;
  }
}

__global__ void convert_any_kernel(const void* x, DType x_type, void* y, DType y_type, CopyPlan p, std::int64_t count) {
  const std::int64_t i = std::int64_t{blockIdx.x} * blockDim.x + threadIdx.x;
  if (i >= count) return;
  std::int64_t ox, oy;
  offsets(p, i, ox, oy);
  write_any(y, y_type, oy, read_any(x, x_type, ox));
}

template <class X, class Y>
void launch_strided(Stream& stream, const Copy& a, const CopyPlan& p, std::int64_t count) {
  const unsigned blocks = element_launch(count, 1).blocks;
  const auto* x = static_cast<const X*>(a.x.data);
  auto* y = static_cast<Y*>(a.y.data);
  if (count < (std::int64_t{1} << 31)) {
    strided_kernel<std::uint32_t><<<blocks, ElementLaunch::kThreads, 0, native(stream)>>>(x, y, p, static_cast<std::uint32_t>(count));
  } else {
    strided_kernel<std::int64_t><<<blocks, ElementLaunch::kThreads, 0, native(stream)>>>(x, y, p, count);
  }
}

template <class X, class Y>
void launch_dense(Stream& stream, const Copy& a, std::int64_t count) {
  const bool aligned =
      packs_are_aligned(a.x.data, 0, size_of(a.x.dtype), kPerThread) && packs_are_aligned(a.y.data, 0, size_of(a.y.dtype), kPerThread);
  dense_convert_kernel<<<element_launch(count, kPerThread).blocks, ElementLaunch::kThreads, 0, native(stream)>>>(
      static_cast<const X*>(a.x.data), static_cast<Y*>(a.y.data), count, aligned);
}

// Equal types: a plain copy where both sides are dense, words of up to 16 bytes one by one otherwise.
void move(Stream& stream, const Copy& a, const CopyPlan& p, std::int64_t count) {
  if (is_dense(p)) {
    const auto bytes = static_cast<std::size_t>(count * size_of(a.x.dtype));
    static_cast<void>(cudaMemcpyAsync(a.y.data, a.x.data, bytes, cudaMemcpyDeviceToDevice, native(stream)));  // run() looks for errors
    return;
  }
  const CopyWords words = copy_words(p, a.x.data, a.y.data, size_of(a.x.dtype));
  visit_word(words.bytes, [&]<class Word>(TypeTag<Word>) { launch_strided<Word, Word>(stream, a, words.plan, count / words.elements); });
}

template <class Word>
__global__ void fill_kernel(Word* y, std::int64_t count, Word value) {
  const std::int64_t i = (std::int64_t{blockIdx.x} * blockDim.x + threadIdx.x) * kPerThread;
#pragma unroll
  for (int k = 0; k < kPerThread; ++k) {
    if (i + k < count) y[i + k] = value;
  }
}

template <class Word>
void launch_fill(Stream& stream, const Fill& a, std::uint64_t bits) {
  Word value;
  memcpy(&value, &bits, sizeof value);
  const unsigned blocks = element_launch(a.y.count, kPerThread).blocks;
  fill_kernel<<<blocks, ElementLaunch::kThreads, 0, native(stream)>>>(a.y.as<Word>(), a.y.count, value);
}

}  // namespace

void launch(Cuda, Stream& stream, const Copy& a) {
  const CopyPlan p = copy_plan(a);
  std::int64_t count = 1;
  for (int d = 0; d < p.rank; ++d) count *= p.shape[d];
  if (count == 0) return;
  if (a.x.dtype == a.y.dtype) return move(stream, a, p, count);
  if (!is_float(a.x.dtype) || !is_float(a.y.dtype)) {
    convert_any_kernel<<<element_launch(count, 1).blocks, ElementLaunch::kThreads, 0, native(stream)>>>(a.x.data, a.x.dtype, a.y.data,
                                                                                                        a.y.dtype, p, count);
    return;
  }
  visit_cuda_float(a.x.dtype, [&]<class X>(TypeTag<X>) {
    visit_cuda_float(a.y.dtype, [&]<class Y>(TypeTag<Y>) {
      if constexpr (!__is_same(X, Y)) {
        if (is_dense(p)) {
          launch_dense<X, Y>(stream, a, count);
        } else {
          launch_strided<X, Y>(stream, a, p, count);
        }
      }
    });
  });
}

void launch(Cuda, Stream& stream, const Fill& a) {
  if (a.y.count == 0) return;
  std::uint64_t bits = 0;
  write_any(&bits, a.y.dtype, 0, a.value);
  if (bits == 0) {
    static_cast<void>(cudaMemsetAsync(a.y.data, 0, static_cast<std::size_t>(a.y.count * size_of(a.y.dtype)), native(stream)));
    return;
  }
  switch (size_of(a.y.dtype)) {
    case 1: return launch_fill<std::uint8_t>(stream, a, bits);
    case 2: return launch_fill<std::uint16_t>(stream, a, bits);
    case 4: return launch_fill<std::uint32_t>(stream, a, bits);
    default: return launch_fill<std::uint64_t>(stream, a, bits);
  }
}

}  // namespace twinlens
