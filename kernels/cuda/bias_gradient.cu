#include "kernels/cuda/device/column_sums.cuh"
#include "kernels/cuda/device/element.cuh"
#include "kernels/cuda/device/functions.cuh"
#include "kernels/cuda/device/launch.cuh"
#include "kernels/cuda/device/rows.cuh"

#include "twinlens/kernels/bias_gradient.h"

namespace twinlens {
namespace {

using namespace cuda;

constexpr int kRowThreads = 8;  // rows of a block in flight

template <int W>
__device__ void store_row(const float (&v)[W], const Rows& x, std::int64_t r, std::int64_t i, std::int64_t n, bool aligned) {
  switch (x.dtype) {
    case DType::bf16: return store_pack(v, row_of<bf16>(x, r) + i, n, aligned);
    case DType::f16: return store_pack(v, row_of<f16>(x, r) + i, n, aligned);
    default: return store_pack(v, row_of<float>(x, r) + i, n, aligned);
  }
}

// A block takes 32 packs of columns and rows_of_block rows, kRowThreads of them at a time; each thread sums every kRowThreads-th row of
// its columns, and the sums of the threads are added in order.
template <class D, class P>
__global__ void __launch_bounds__(256) rows_kernel(BiasGradient a, std::int64_t rows_of_block, unsigned column_blocks, bool aligned) {
  constexpr int W = kPack<D>;
  __shared__ float sums[kRowThreads][kWarp * W];
  const std::int64_t rows = valid_rows(a.dy), c = a.dy.cols;
  const std::int64_t row_block = blockIdx.x / column_blocks, begin = row_block * rows_of_block;
  const std::int64_t end = begin + rows_of_block < rows ? begin + rows_of_block : rows;
  const std::int64_t first = std::int64_t{blockIdx.x % column_blocks} * (kWarp * W), i = first + threadIdx.x * W;
  float sum[W] = {};
  if (i < c) {
    for (std::int64_t r = begin + threadIdx.y; r < end; r += kRowThreads) {
      float d[W];
      load_pack(row_of<D>(a.dy, r) + i, c - i, aligned, d);
      if (a.activation != Activation::none) {
        float slope[W];
        load_pack(row_of<P>(a.pre, r) + i, c - i, aligned, slope);
        apply_activation_slope(a.activation, slope);
#pragma unroll
        for (int k = 0; k < W; ++k) d[k] *= slope[k];
      }
      if (a.dpre.data != nullptr) store_row(d, a.dpre, r, i, c - i, aligned);
#pragma unroll
      for (int k = 0; k < W; ++k) sum[k] += d[k];
    }
  }
  if (a.dbias == nullptr || begin >= rows) return;  // alike for the whole block
#pragma unroll
  for (int k = 0; k < W; ++k) sums[threadIdx.y][k * kWarp + threadIdx.x] = sum[k];  // by k first: no bank conflicts
  __syncthreads();
  const int thread = static_cast<int>(threadIdx.y * kWarp + threadIdx.x);
  for (int j = thread; j < kWarp * W; j += kWarp * kRowThreads) {
    const std::int64_t column = first + j;
    if (column >= c) break;
    const int at = j % W * kWarp + j / W;
    float total = sums[0][at];
    for (int y = 1; y < kRowThreads; ++y) total += sums[y][at];
    a.scratch[row_block * c + column] = total;
  }
}

}  // namespace

void launch(Cuda, Stream& stream, const BiasGradient& a) {
  if (a.dy.cols == 0) return;
  const int pack = pack_of(a.dy.dtype);
  const std::int64_t rows_of_block = rows_of_sum_block(a.dy.rows, BiasGradient::kRowsPerBlock);
  const std::int64_t row_blocks = ceil_div(a.dy.rows, rows_of_block), column_blocks = ceil_div(a.dy.cols, kWarp * pack);
  const bool with_pre = a.activation != Activation::none;
  const bool aligned = rows_are_aligned(a.dy, pack) && (!with_pre || rows_are_aligned(a.pre, pack)) &&
                       (a.dpre.data == nullptr || rows_are_aligned(a.dpre, pack));
  if (row_blocks != 0) {
    const auto blocks = static_cast<unsigned>(row_blocks * column_blocks);
    visit_cuda_float(a.dy.dtype, [&]<class D>(TypeTag<D>) {
      visit_cuda_float(with_pre ? a.pre.dtype : a.dy.dtype, [&]<class P>(TypeTag<P>) {
        rows_kernel<D, P>
            <<<blocks, dim3(kWarp, kRowThreads), 0, native(stream)>>>(a, rows_of_block, static_cast<unsigned>(column_blocks), aligned);
      });
    });
  }
  if (a.dbias != nullptr) launch_sum_parts(stream, {a.scratch, a.dbias, a.accumulate}, {}, a.dy, rows_of_block, a.dy.cols);
}

}  // namespace twinlens
