#include "kernels/cuda/device/column_sums.cuh"
#include "kernels/cuda/device/element.cuh"
#include "kernels/cuda/device/functions.cuh"
#include "kernels/cuda/device/launch.cuh"
#include "kernels/cuda/device/packed.cuh"
#include "kernels/cuda/device/rows.cuh"
#include "kernels/cuda/device/short_functions.cuh"
#include "kernels/cuda/device/stores.cuh"

#include "twinlens/kernels/bias_gradient.h"

namespace twinlens {
namespace {

using namespace cuda;

constexpr int kRowThreads = 8;  // rows that a block takes at a time
constexpr int kAhead = 4;       // rows of a thread in flight

template <int W, class T>
__device__ void store_at(const float (&v)[W], T* p, std::int64_t n, bool aligned) {
  if (aligned && n >= W) {
    store_whole(v, p);
  } else {
    store_pack(v, p, n, false);
  }
}

template <int W>
__device__ void store_row(const float (&v)[W], const Rows& x, std::int64_t r, std::int64_t i, std::int64_t n, bool aligned) {
  switch (x.dtype) {
    case DType::bf16: return store_at(v, row_of<bf16>(x, r) + i, n, aligned);
    case DType::f16: return store_at(v, row_of<f16>(x, r) + i, n, aligned);
    default: return store_at(v, row_of<float>(x, r) + i, n, aligned);
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
    const std::int64_t n = c - i;
    const auto take = [&](std::int64_t r, const Packed<W, D>& dy, const Packed<W, P>& pre) {
      float d[W];
      unpack(dy, d);
      if (a.activation != Activation::none) {
        float slope[W];
        unpack(pre, slope);
        if constexpr (sizeof(D) == 2 && sizeof(P) == 2) {
          apply_short_slope(a.activation, slope);
        } else {
          apply_activation_slope(a.activation, slope);
        }
#pragma unroll
        for (int k = 0; k < W; ++k) d[k] = a.activation == Activation::relu && slope[k] == 0.0F ? 0.0F : d[k] * slope[k];
      }
      if (a.dpre.data != nullptr) store_row(d, a.dpre, r, i, n, aligned);
#pragma unroll
      for (int k = 0; k < W; ++k) sum[k] += d[k];
    };
    // kAhead rows are on their way at a time.
    Packed<W, D> dy[kAhead];
    Packed<W, P> pre[kAhead];
    for (std::int64_t r = begin + threadIdx.y; r < end; r += kAhead * kRowThreads) {
#pragma unroll
      for (int ahead = 0; ahead < kAhead; ++ahead) {
        const std::int64_t row = r + ahead * kRowThreads;
        if (row >= end) break;
        load_packed(row_of<D>(a.dy, row) + i, n, aligned, dy[ahead]);
        if (a.activation != Activation::none) load_packed(row_of<P>(a.pre, row) + i, n, aligned, pre[ahead]);
      }
#pragma unroll
      for (int ahead = 0; ahead < kAhead; ++ahead) {
        if (r + ahead * kRowThreads < end) take(r + ahead * kRowThreads, dy[ahead], pre[ahead]);
      }
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

// Where there are many columns, fewer and longer blocks of rows fill the card, too: fewer sums to write. A function of the sizes alone.
constexpr std::int64_t rows_of_block_for(std::int64_t rows, std::int64_t column_blocks) {
  constexpr std::int64_t kEnoughBlocks = 4096, kUnit = BiasGradient::kRowsPerBlock;
  std::int64_t of_block = rows_of_sum_block(rows, kUnit);
  while (of_block < 8 * kUnit && ceil_div(rows, of_block) * column_blocks > kEnoughBlocks) of_block *= 2;
  return of_block;
}

}  // namespace

void launch(Cuda, Stream& stream, const BiasGradient& a) {
  if (a.dy.cols == 0) return;
  const int pack = pack_of(a.dy.dtype);
  const std::int64_t column_blocks = ceil_div(a.dy.cols, kWarp * pack), rows_of_block = rows_of_block_for(a.dy.rows, column_blocks);
  const std::int64_t row_blocks = ceil_div(a.dy.rows, rows_of_block);
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
