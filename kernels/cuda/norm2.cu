#include "kernels/cuda/device/element.cuh"
#include "kernels/cuda/device/launch.cuh"
#include "kernels/cuda/device/rows.cuh"

#include "twinlens/kernels/norm2.h"

namespace twinlens {
namespace {

using namespace cuda;

constexpr int kThreads = 256;

// A block sums kBlock elements in double: squares and the number of those that are not finite.
template <class T>
__global__ void __launch_bounds__(kThreads) block_kernel(const T* x, std::int64_t count, double* parts, bool aligned) {
  constexpr int W = kPack<T>;
  const std::int64_t begin = std::int64_t{blockIdx.x} * SumOfSquares::kBlock;
  const std::int64_t end = begin + SumOfSquares::kBlock < count ? begin + SumOfSquares::kBlock : count;
  double sum = 0.0, bad = 0.0;
  for_row_packs<kThreads, W>(end - begin, [&](std::int64_t i, std::int64_t n) {
    float v[W];
    load_pack(x + begin + i, n, aligned, v);
#pragma unroll
    for (int k = 0; k < W; ++k) {
      const double wide = static_cast<double>(v[k]);
      sum += wide * wide;  // 0 beyond the end
      bad += isfinite(v[k]) ? 0.0 : 1.0;
    }
  });
  sum = group_sum<kThreads>(sum);
  bad = group_sum<kThreads>(bad);
  if (threadIdx.x != 0) return;
  parts[2 * std::int64_t{blockIdx.x}] = sum;
  parts[2 * std::int64_t{blockIdx.x} + 1] = bad;
}

__global__ void __launch_bounds__(kThreads) total_kernel(const double* parts, std::int64_t blocks, float* root, std::int64_t* nonfinite) {
  double sum = 0.0, bad = 0.0;
  for (std::int64_t b = threadIdx.x; b < blocks; b += kThreads) {
    sum += parts[2 * b];
    bad += parts[2 * b + 1];
  }
  sum = group_sum<kThreads>(sum);
  bad = group_sum<kThreads>(bad);
  if (threadIdx.x != 0) return;
  *root = static_cast<float>(sqrt(sum));
  *nonfinite = static_cast<std::int64_t>(bad);
}

}  // namespace

void launch(Cuda, Stream& stream, const SumOfSquares& a) {
  const std::int64_t blocks = ceil_div(a.x.count, SumOfSquares::kBlock);
  if (blocks != 0) {
    visit_cuda_float(a.x.dtype, [&]<class T>(TypeTag<T>) {
      block_kernel<<<static_cast<unsigned>(blocks), kThreads, 0, native(stream)>>>(a.x.as<T>(), a.x.count, a.scratch, is_aligned(a.x.data));
    });
  }
  total_kernel<<<1, kThreads, 0, native(stream)>>>(a.scratch, blocks, a.root, a.nonfinite);  // also of nothing: 0
}

}  // namespace twinlens
