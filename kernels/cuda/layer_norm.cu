#include "kernels/cuda/device/element.cuh"
#include "kernels/cuda/device/launch.cuh"
#include "kernels/cuda/device/rows.cuh"

#include "twinlens/kernels/layer_norm.h"

namespace twinlens {
namespace {

using namespace cuda;

// A warp (or, for wide rows, a block) per row. A row is read three times, but only once from memory: the rows in flight on a
// multiprocessor fit its L1 cache at CLIP's widths.
template <int kThreads, class X, class Y>
__global__ void __launch_bounds__(256) forward_kernel(LayerNormForward a, bool aligned) {
  constexpr int W = kPack<X>;
  const std::int64_t r = std::int64_t{blockIdx.x} * blockDim.y + threadIdx.y;
  if (r >= valid_rows(a.x)) return;
  const std::int64_t c = a.x.cols, first = std::int64_t{threadIdx.x} * W, step = kThreads * W;
  const X* x = row_of<X>(a.x, r);
  Y* y = row_of<Y>(a.y, r);
  float v[W];

  float sum = 0.0F;
  for (std::int64_t i = first; i < c; i += step) {
    load_pack(x + i, c - i, aligned, v);
#pragma unroll
    for (int k = 0; k < W; ++k) sum += v[k];
  }
  const float mean = group_sum<kThreads>(sum) / static_cast<float>(c);

  float squares = 0.0F;
  for (std::int64_t i = first; i < c; i += step) {
    load_pack(x + i, c - i, aligned, v);
#pragma unroll
    for (int k = 0; k < W; ++k) squares += i + k < c ? (v[k] - mean) * (v[k] - mean) : 0.0F;
  }
  const float rstd = 1.0F / sqrtf(group_sum<kThreads>(squares) / static_cast<float>(c) + a.eps);

  for (std::int64_t i = first; i < c; i += step) {
    float scale[W], shift[W];
    load_pack(x + i, c - i, aligned, v);
    if (a.gamma != nullptr) load_pack(a.gamma + i, c - i, aligned, scale);
    if (a.beta != nullptr) load_pack(a.beta + i, c - i, aligned, shift);
#pragma unroll
    for (int k = 0; k < W; ++k) {
      v[k] = (v[k] - mean) * rstd;
      if (a.gamma != nullptr) v[k] *= scale[k];
      if (a.beta != nullptr) v[k] += shift[k];
    }
    store_pack(v, y + i, c - i, aligned);
  }
  if (threadIdx.x == 0) {
    a.mean[r] = mean;
    a.rstd[r] = rstd;
  }
}

template <int kThreads, class X, class D>
__device__ void backward_row(const LayerNormBackward& a, std::int64_t r, bool aligned) {
  constexpr int W = kPack<X>;
  const std::int64_t c = a.x.cols, first = std::int64_t{threadIdx.x} * W, step = kThreads * W;
  const X* x = row_of<X>(a.x, r);
  const D* dy = row_of<D>(a.dy, r);
  const float mean = a.mean[r], rstd = a.rstd[r];
  float xhat[W], g[W], gamma[W];
  const auto load = [&](std::int64_t i) {
    load_pack(x + i, c - i, aligned, xhat);
    load_pack(dy + i, c - i, aligned, g);  // 0 beyond the row, so the sums need no mask
    if (a.gamma != nullptr) load_pack(a.gamma + i, c - i, aligned, gamma);
#pragma unroll
    for (int k = 0; k < W; ++k) {
      xhat[k] = (xhat[k] - mean) * rstd;
      if (a.gamma != nullptr) g[k] *= gamma[k];
    }
  };

  float sum_g = 0.0F, sum_gx = 0.0F;
  for (std::int64_t i = first; i < c; i += step) {
    load(i);
#pragma unroll
    for (int k = 0; k < W; ++k) {
      sum_g += g[k];
      sum_gx += g[k] * xhat[k];
    }
  }
  const float mean_g = group_sum<kThreads>(sum_g) / static_cast<float>(c);
  const float mean_gx = group_sum<kThreads>(sum_gx) / static_cast<float>(c);
  X* dx = row_of<X>(a.dx, r);
  for (std::int64_t i = first; i < c; i += step) {
    load(i);
#pragma unroll
    for (int k = 0; k < W; ++k) g[k] = (g[k] - mean_g - xhat[k] * mean_gx) * rstd;
    store_pack(g, dx + i, c - i, aligned);
  }
}

// Column sums over the rows of one block, in order; two columns a thread. The rows have just been read for dx, so they come from cache.
template <class X, class D>
__device__ void column_parts(const LayerNormBackward& a, std::int64_t begin, std::int64_t end, float* gamma_part, float* beta_part,
                             bool aligned) {
  constexpr int W = 2;
  const std::int64_t c = a.x.cols, threads = std::int64_t{blockDim.x} * blockDim.y;
  for (std::int64_t i = (std::int64_t{threadIdx.y} * blockDim.x + threadIdx.x) * W; i < c; i += threads * W) {
    float x[W], dy[W], gamma_sum[W] = {}, beta_sum[W] = {};
    for (std::int64_t r = begin; r < end; ++r) {
      const float mean = a.mean[r], rstd = a.rstd[r];
      load_pack(row_of<X>(a.x, r) + i, c - i, aligned, x);
      load_pack(row_of<D>(a.dy, r) + i, c - i, aligned, dy);
#pragma unroll
      for (int k = 0; k < W; ++k) {
        gamma_sum[k] += dy[k] * ((x[k] - mean) * rstd);
        beta_sum[k] += dy[k];
      }
    }
    if (a.dgamma != nullptr) store_pack(gamma_sum, gamma_part + i, c - i, false);
    if (a.dbeta != nullptr) store_pack(beta_sum, beta_part + i, c - i, false);
  }
}

// A block for kRowsPerBlock rows: dx of each, then the block's share of dgamma and dbeta.
template <int kThreads, class X, class D>
__global__ void __launch_bounds__(256) backward_kernel(LayerNormBackward a, bool aligned) {
  const std::int64_t rows = valid_rows(a.x);
  const std::int64_t begin = std::int64_t{blockIdx.x} * LayerNormBackward::kRowsPerBlock;
  const std::int64_t end = begin + LayerNormBackward::kRowsPerBlock < rows ? begin + LayerNormBackward::kRowsPerBlock : rows;
  if (a.dx.data != nullptr) {
    for (std::int64_t r = begin + threadIdx.y; r < end; r += blockDim.y) backward_row<kThreads, X, D>(a, r, aligned);
  }
  if ((a.dgamma != nullptr || a.dbeta != nullptr) && begin < rows) {
    float* gamma_part = a.scratch + std::int64_t{blockIdx.x} * a.x.cols;
    column_parts<X, D>(a, begin, end, gamma_part, gamma_part + std::int64_t{gridDim.x} * a.x.cols, aligned);
  }
}

// out[c] = sum over parts: kSlices threads a column take every kSlices-th part, then the slices are added in order. blockIdx.y chooses
// dgamma or dbeta.
constexpr int kSlices = 16;
__global__ void sum_parts_kernel(LayerNormBackward a, std::int64_t part_capacity) {
  __shared__ float slices[kSlices][kWarp];
  float* out = blockIdx.y == 0 ? a.dgamma : a.dbeta;
  if (out == nullptr) return;
  const std::int64_t parts = (valid_rows(a.x) + LayerNormBackward::kRowsPerBlock - 1) / LayerNormBackward::kRowsPerBlock;
  const std::int64_t c = a.x.cols, column = std::int64_t{blockIdx.x} * kWarp + threadIdx.x;
  const float* from = a.scratch + (blockIdx.y == 0 ? 0 : part_capacity * c);
  float sum = 0.0F;
  if (column < c) {
#pragma unroll 4
    for (std::int64_t p = threadIdx.y; p < parts; p += kSlices) sum += from[p * c + column];
  }
  slices[threadIdx.y][threadIdx.x] = sum;
  __syncthreads();
  if (threadIdx.y != 0 || column >= c) return;
  for (int s = 1; s < kSlices; ++s) sum += slices[s][threadIdx.x];
  out[column] = sum;
}

template <class Rows1, class Rows2>
bool rows_are_aligned(const Rows1& x, const Rows2& other, int pack) {
  return packs_are_aligned(x.data, x.stride, size_of(x.dtype), pack) &&
         packs_are_aligned(other.data, other.stride, size_of(other.dtype), pack);
}

int pack_of(DType t) { return static_cast<int>(16 / size_of(t)); }

}  // namespace

void launch(Cuda, Stream& stream, const LayerNormForward& a) {
  const RowLaunch geometry = row_launch(a.x.rows, a.x.cols);
  if (geometry.blocks == 0) return;
  const int pack = pack_of(a.x.dtype);
  const bool aligned = rows_are_aligned(a.x, a.y, pack) && packs_are_aligned(a.gamma, 0, sizeof(float), pack) &&
                       packs_are_aligned(a.beta, 0, sizeof(float), pack);
  const dim3 threads(geometry.threads_per_row, geometry.rows_per_block);
  visit_cuda_float(a.x.dtype, [&]<class X>(TypeTag<X>) {
    visit_cuda_float(a.y.dtype, [&]<class Y>(TypeTag<Y>) {
      if (geometry.threads_per_row == kWarp) {
        forward_kernel<kWarp, X, Y><<<geometry.blocks, threads, 0, native(stream)>>>(a, aligned);
      } else {
        forward_kernel<256, X, Y><<<geometry.blocks, threads, 0, native(stream)>>>(a, aligned);
      }
    });
  });
}

void launch(Cuda, Stream& stream, const LayerNormBackward& a) {
  if (a.x.cols == 0) return;
  const RowLaunch geometry = row_block_launch(a.x.rows, a.x.cols, LayerNormBackward::kRowsPerBlock);
  const int pack = pack_of(a.x.dtype);
  const bool aligned = rows_are_aligned(a.x, a.dy, pack) && packs_are_aligned(a.gamma, 0, sizeof(float), pack) &&
                       (a.dx.data == nullptr || packs_are_aligned(a.dx.data, a.dx.stride, size_of(a.dx.dtype), pack));
  const dim3 threads(geometry.threads_per_row, geometry.rows_per_block);
  if (geometry.blocks != 0) {
    visit_cuda_float(a.x.dtype, [&]<class X>(TypeTag<X>) {
      visit_cuda_float(a.dy.dtype, [&]<class D>(TypeTag<D>) {
        if (geometry.threads_per_row == kWarp) {
          backward_kernel<kWarp, X, D><<<geometry.blocks, threads, 0, native(stream)>>>(a, aligned);
        } else {
          backward_kernel<256, X, D><<<geometry.blocks, threads, 0, native(stream)>>>(a, aligned);
        }
      });
    });
  }
  if (a.dgamma == nullptr && a.dbeta == nullptr) return;
  // Also for no rows: the sums over nothing are written as 0.
  const dim3 grid(static_cast<unsigned>(ceil_div(a.x.cols, kWarp)), 2);
  sum_parts_kernel<<<grid, dim3(kWarp, kSlices), 0, native(stream)>>>(a, geometry.blocks);
}

}  // namespace twinlens
