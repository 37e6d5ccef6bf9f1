// Rows of whole words of up to kWidestRow columns have the kernels in device/layer_norm_rows.cuh. Here are those for the rest: rows that do
// not start on words stay in the registers of a warp (up to kWidestForWarp columns); wider ones get a block of threads and are read again,
// from cache.

#include "kernels/cuda/device/column_sums.cuh"
#include "kernels/cuda/device/element.cuh"
#include "kernels/cuda/device/launch.cuh"
#include "kernels/cuda/device/layer_norm_rows.cuh"
#include "kernels/cuda/device/packed.cuh"
#include "kernels/cuda/device/rows.cuh"

#include "twinlens/kernels/layer_norm.h"

namespace twinlens {
namespace {

using namespace cuda;

// y = (x - mean) * rstd * gamma + beta for one pack.
template <int W, class Y>
__device__ void write_normalised(const LayerNormForward& a, float (&v)[W], float mean, float rstd, Y* y, std::int64_t i, bool aligned) {
  const std::int64_t n = a.x.cols - i;
  float scale[W], shift[W];
  if (a.gamma != nullptr) load_pack(a.gamma + i, n, aligned, scale);
  if (a.beta != nullptr) load_pack(a.beta + i, n, aligned, shift);
#pragma unroll
  for (int k = 0; k < W; ++k) {
    v[k] = (v[k] - mean) * rstd;
    if (a.gamma != nullptr) v[k] *= scale[k];
    if (a.beta != nullptr) v[k] += shift[k];
  }
  store_pack(v, y + i, n, aligned);
}

// A warp for a row of at most kWarp * kPacks packs.
template <int kPacks, class X, class Y>
__global__ void __launch_bounds__(128) forward_kernel(LayerNormForward a, bool aligned) {
  constexpr int W = kPack<X>;
  const std::int64_t r = group_row();
  if (r >= valid_rows(a.x)) return;
  const std::int64_t c = a.x.cols, first = std::int64_t{threadIdx.x} * W;
  const X* x = row_of<X>(a.x, r);
  float v[kPacks][W];
  float sum = 0.0F;
#pragma unroll
  for (int p = 0; p < kPacks; ++p) {
    const std::int64_t i = first + p * kWarp * W;
    load_pack(x + i, c - i, aligned, v[p]);  // 0 beyond the row
  }
#pragma unroll
  for (int p = 0; p < kPacks; ++p) {
#pragma unroll
    for (int k = 0; k < W; ++k) sum += v[p][k];
  }
  const float mean = group_sum<kWarp>(sum) / static_cast<float>(c);
  float squares = 0.0F;
#pragma unroll
  for (int p = 0; p < kPacks; ++p) {
    const std::int64_t i = first + p * kWarp * W;
#pragma unroll
    for (int k = 0; k < W; ++k) squares += i + k < c ? (v[p][k] - mean) * (v[p][k] - mean) : 0.0F;
  }
  const float rstd = 1.0F / sqrtf(group_sum<kWarp>(squares) / static_cast<float>(c) + a.eps);
  Y* y = row_of<Y>(a.y, r);
#pragma unroll
  for (int p = 0; p < kPacks; ++p) {
    const std::int64_t i = first + p * kWarp * W;
    if (i < c) write_normalised(a, v[p], mean, rstd, y, i, aligned);
  }
  if (threadIdx.x == 0) {
    a.mean[r] = mean;
    a.rstd[r] = rstd;
  }
}

// A block for a row of any width.
template <class X, class Y>
__global__ void __launch_bounds__(256) wide_forward_kernel(LayerNormForward a, bool aligned) {
  constexpr int W = kPack<X>;
  const std::int64_t r = group_row(), c = a.x.cols;
  if (r >= valid_rows(a.x)) return;
  const X* x = row_of<X>(a.x, r);
  Y* y = row_of<Y>(a.y, r);
  float v[W], sum = 0.0F, squares = 0.0F;
  for_row_packs<256, W>(c, [&](std::int64_t i, std::int64_t n) {
    load_pack(x + i, n, aligned, v);
#pragma unroll
    for (int k = 0; k < W; ++k) sum += v[k];
  });
  const float mean = group_sum<256>(sum) / static_cast<float>(c);
  for_row_packs<256, W>(c, [&](std::int64_t i, std::int64_t n) {
    load_pack(x + i, n, aligned, v);
#pragma unroll
    for (int k = 0; k < W; ++k) squares += k < n ? (v[k] - mean) * (v[k] - mean) : 0.0F;
  });
  const float rstd = 1.0F / sqrtf(group_sum<256>(squares) / static_cast<float>(c) + a.eps);
  for_row_packs<256, W>(c, [&](std::int64_t i, std::int64_t n) {
    load_pack(x + i, n, aligned, v);
    write_normalised(a, v, mean, rstd, y, i, aligned);
  });
  if (threadIdx.x == 0) {
    a.mean[r] = mean;
    a.rstd[r] = rstd;
  }
}

// Adds the column sums of the warps in order, through memory that all warps of the block share, and writes the block's part.
template <int kPacks, int W>
__device__ void write_column_part(const float (&sum)[kPacks][W], float* shared, std::int64_t c, float* part) {
  const std::int64_t first = std::int64_t{threadIdx.x} * W;
  for (int warp = 0; warp < kBackwardWarps; ++warp) {
    __syncthreads();
    if (static_cast<int>(threadIdx.y) != warp) continue;
#pragma unroll
    for (int p = 0; p < kPacks; ++p) {
#pragma unroll
      for (int k = 0; k < W; ++k) {
        // by k first: neighbouring lanes, neighbouring banks
        const int at = (p * W + k) * kWarp + static_cast<int>(threadIdx.x);
        shared[at] = warp == 0 ? sum[p][k] : shared[at] + sum[p][k];
      }
    }
  }
  __syncthreads();
  // The warp of pack p writes it; lanes hold neighbouring packs.
  for (int p = static_cast<int>(threadIdx.y); p < kPacks; p += kBackwardWarps) {
    const std::int64_t i = first + p * kWarp * W;
    for (int k = 0; k < W; ++k) {
      if (i + k < c) part[i + k] = shared[(p * W + k) * kWarp + static_cast<int>(threadIdx.x)];
    }
  }
}

// A block of kBackwardWarps warps takes rows_of_block rows, a warp one row at a time: x and dy are read once, dx is written, and every lane
// sums its own columns of dgamma and dbeta over the rows of its warp.
template <int kPacks, class X, class D>
__global__ void __launch_bounds__(kWarp* kBackwardWarps) backward_kernel(LayerNormBackward a, std::int64_t rows_of_block) {
  constexpr int W = kPack<X>;
  __shared__ float shared[kPacks * W * kWarp];
  const RowBlock rows = row_block(a, rows_of_block);
  if (rows.begin >= valid_rows(a.x)) return;  // the whole block
  const std::int64_t c = a.x.cols, first = std::int64_t{threadIdx.x} * W;
  float gamma_sum[kPacks][W] = {}, beta_sum[kPacks][W] = {};
  for (std::int64_t r = rows.begin + threadIdx.y; r < rows.end; r += kBackwardWarps) {
    const X* x = row_of<X>(a.x, r);
    const D* dy = row_of<D>(a.dy, r);
    const float mean = a.mean[r], rstd = a.rstd[r];
    Packed<W, X> row_x[kPacks];
    Packed<W, D> row_dy[kPacks];
#pragma unroll
    for (int p = 0; p < kPacks; ++p) {
      const std::int64_t i = first + p * kWarp * W;
      load_packed(x + i, c - i, false, row_x[p]);
      load_packed(dy + i, c - i, false, row_dy[p]);  // 0 beyond the row, so the sums need no mask
    }
    float sum_g = 0.0F, sum_gx = 0.0F;
#pragma unroll
    for (int p = 0; p < kPacks; ++p) {
      const std::int64_t i = first + p * kWarp * W;
      float xs[W], ds[W], gamma[W];
      unpack(row_x[p], xs);
      unpack(row_dy[p], ds);
      if (a.gamma != nullptr) load_pack(a.gamma + i, c - i, false, gamma);
#pragma unroll
      for (int k = 0; k < W; ++k) {
        const float xhat = (xs[k] - mean) * rstd, d = ds[k];
        gamma_sum[p][k] += d * xhat;
        beta_sum[p][k] += d;
        const float g = a.gamma != nullptr ? d * gamma[k] : d;
        sum_g += g;
        sum_gx += g * xhat;
      }
    }
    if (a.dx.data == nullptr) continue;  // the whole warp
    const float mean_g = group_sum<kWarp>(sum_g) / static_cast<float>(c);
    const float mean_gx = group_sum<kWarp>(sum_gx) / static_cast<float>(c);
    X* dx = row_of<X>(a.dx, r);
#pragma unroll
    for (int p = 0; p < kPacks; ++p) {
      const std::int64_t i = first + p * kWarp * W;
      if (i >= c) continue;
      float xs[W], ds[W], gamma[W], g[W];
      forget(row_x[p]);
      forget(row_dy[p]);
      unpack(row_x[p], xs);
      unpack(row_dy[p], ds);
      if (a.gamma != nullptr) load_pack(a.gamma + i, c - i, false, gamma);
#pragma unroll
      for (int k = 0; k < W; ++k) {
        const float xhat = (xs[k] - mean) * rstd, d = ds[k];
        g[k] = ((a.gamma != nullptr ? d * gamma[k] : d) - mean_g - xhat * mean_gx) * rstd;
      }
      store_pack(g, dx + i, c - i, false);
    }
  }
  if (a.dgamma != nullptr) write_column_part(gamma_sum, shared, c, rows.gamma_part);
  if (a.dbeta != nullptr) write_column_part(beta_sum, shared, c, rows.beta_part);
}

// --- rows wider than a warp holds: a block of 256 for a row at a time, rows read again from cache ----------------------------------------
template <class X, class D>
__device__ void wide_backward_row(const LayerNormBackward& a, std::int64_t r, bool aligned) {
  constexpr int W = kPack<X>;
  const std::int64_t c = a.x.cols;
  const X* x = row_of<X>(a.x, r);
  const D* dy = row_of<D>(a.dy, r);
  const float mean = a.mean[r], rstd = a.rstd[r];
  float xhat[W], g[W], gamma[W];
  const auto load = [&](std::int64_t i, std::int64_t n) {
    load_pack(x + i, n, aligned, xhat);
    load_pack(dy + i, n, aligned, g);  // 0 beyond the row, so the sums need no mask
    if (a.gamma != nullptr) load_pack(a.gamma + i, n, aligned, gamma);
#pragma unroll
    for (int k = 0; k < W; ++k) {
      xhat[k] = (xhat[k] - mean) * rstd;
      if (a.gamma != nullptr) g[k] *= gamma[k];
    }
  };
  float sum_g = 0.0F, sum_gx = 0.0F;
  for_row_packs<256, W>(c, [&](std::int64_t i, std::int64_t n) {
    load(i, n);
#pragma unroll
    for (int k = 0; k < W; ++k) {
      sum_g += g[k];
      sum_gx += g[k] * xhat[k];
    }
  });
  const float mean_g = group_sum<256>(sum_g) / static_cast<float>(c);
  const float mean_gx = group_sum<256>(sum_gx) / static_cast<float>(c);
  X* dx = row_of<X>(a.dx, r);
  for_row_packs<256, W>(c, [&](std::int64_t i, std::int64_t n) {
    load(i, n);
#pragma unroll
    for (int k = 0; k < W; ++k) g[k] = (g[k] - mean_g - xhat[k] * mean_gx) * rstd;
    store_pack(g, dx + i, n, aligned);
  });
}

// Column sums over the rows of one block, in order; two columns a thread.
template <class X, class D>
__device__ void wide_column_parts(const LayerNormBackward& a, const RowBlock& rows, bool aligned) {
  constexpr int W = 2;
  const std::int64_t c = a.x.cols;
  for_row_packs<256, W>(c, [&](std::int64_t i, std::int64_t n) {
    float x[W], dy[W], gamma_sum[W] = {}, beta_sum[W] = {};
    for (std::int64_t r = rows.begin; r < rows.end; ++r) {
      const float mean = a.mean[r], rstd = a.rstd[r];
      load_pack(row_of<X>(a.x, r) + i, n, aligned, x);
      load_pack(row_of<D>(a.dy, r) + i, n, aligned, dy);
#pragma unroll
      for (int k = 0; k < W; ++k) {
        gamma_sum[k] += dy[k] * ((x[k] - mean) * rstd);
        beta_sum[k] += dy[k];
      }
    }
    if (a.dgamma != nullptr) store_pack(gamma_sum, rows.gamma_part + i, n, false);
    if (a.dbeta != nullptr) store_pack(beta_sum, rows.beta_part + i, n, false);
  });
}

template <class X, class D>
__global__ void __launch_bounds__(256) wide_backward_kernel(LayerNormBackward a, std::int64_t rows_of_block, bool aligned) {
  const RowBlock rows = row_block(a, rows_of_block);
  if (rows.begin >= valid_rows(a.x)) return;
  if (a.dx.data != nullptr) {
    for (std::int64_t r = rows.begin; r < rows.end; ++r) wide_backward_row<X, D>(a, r, aligned);
  }
  if (a.dgamma != nullptr || a.dbeta != nullptr) wide_column_parts<X, D>(a, rows, aligned);
}

constexpr std::int64_t kWidestBackward = 1024;  // beyond it, sums for every column do not fit the registers

unsigned multiprocessors(const Stream& stream) {
  int count = 1;
  static_cast<void>(cudaDeviceGetAttribute(&count, cudaDevAttrMultiProcessorCount, stream.device().index));
  return static_cast<unsigned>(count);
}

// Rows that the kernels of whole words take: packs of `pack` elements on both sides and in the parameters.
template <class R>
bool takes_whole_rows(const ConstRows& x, const R& other, int pack, const float* gamma, const float* beta) {
  return x.cols <= kWidestRow && x.cols % pack == 0 && rows_are_aligned(x, pack) && rows_are_aligned(other, pack) && is_aligned(gamma) &&
         is_aligned(beta);
}

template <class X, class Y>
void forward_whole_rows(Stream& stream, const LayerNormForward& a) {
  visit_row_shape(a.x.cols, [&]<int kGroup, int kColumns>(std::integral_constant<int, kGroup>, std::integral_constant<int, kColumns>) {
    constexpr int kRows = kForwardWarps / kGroup;
    const std::int64_t most = std::int64_t{multiprocessors(stream)} * kForwardBlocks<kColumns>, blocks = ceil_div(a.x.rows, kRows);
    row_forward_kernel<kGroup, kColumns, X, Y>
        <<<static_cast<unsigned>(blocks < most ? blocks : most), dim3(kGroup * kWarp, kRows), 0, native(stream)>>>(a);
  });
}

template <class X, class D>
void backward_whole_rows(Stream& stream, const LayerNormBackward& a, unsigned blocks, std::int64_t rows_of_block) {
  visit_row_shape(a.x.cols, [&]<int kGroup, int kColumns>(std::integral_constant<int, kGroup>, std::integral_constant<int, kColumns>) {
    row_backward_kernel<kGroup, kColumns, X, D>
        <<<blocks, dim3(kGroup * kWarp, kBackwardWarps / kGroup), 0, native(stream)>>>(a, rows_of_block);
  });
}

}  // namespace

void launch(Cuda, Stream& stream, const LayerNormForward& a) {
  const RowLaunch geometry = row_launch(a.x.rows, a.x.cols);
  if (geometry.blocks == 0) return;
  const int pack = pack_of(a.x.dtype);
  const bool whole = takes_whole_rows(a.x, a.y, pack, a.gamma, a.beta);
  const bool aligned = rows_are_aligned(a.x, pack) && rows_are_aligned(a.y, pack) && is_aligned(a.gamma) && is_aligned(a.beta);
  const dim3 threads = threads_of(geometry);
  visit_cuda_float(a.x.dtype, [&]<class X>(TypeTag<X>) {
    visit_cuda_float(a.y.dtype, [&]<class Y>(TypeTag<Y>) {
      if constexpr (kRowTypes<X, Y>) {
        if (whole) return forward_whole_rows<X, Y>(stream, a);
      }
      if (geometry.threads_per_row != kWarp) {
        wide_forward_kernel<X, Y><<<geometry.blocks, threads, 0, native(stream)>>>(a, aligned);
      } else {
        constexpr int kPacks = static_cast<int>(RowLaunch::kWidestForWarp) / (kWarp * kPack<X>);
        forward_kernel<kPacks, X, Y><<<geometry.blocks, threads, 0, native(stream)>>>(a, aligned);
      }
    });
  });
}

void launch(Cuda, Stream& stream, const LayerNormBackward& a) {
  if (a.x.cols == 0) return;
  const std::int64_t rows_of_block = rows_of_sum_block(a.x.rows, LayerNormBackward::kRowsPerBlock);
  const auto blocks = static_cast<unsigned>(ceil_div(a.x.rows, rows_of_block));
  const int pack = pack_of(a.x.dtype);
  const bool aligned = rows_are_aligned(a.x, pack) && rows_are_aligned(a.dy, pack) && is_aligned(a.gamma) &&
                       (a.dx.data == nullptr || rows_are_aligned(a.dx, pack));
  const bool whole = aligned && takes_whole_rows(a.x, a.dy, pack, a.gamma, nullptr);
  if (blocks != 0) {
    visit_cuda_float(a.x.dtype, [&]<class X>(TypeTag<X>) {
      visit_cuda_float(a.dy.dtype, [&]<class D>(TypeTag<D>) {
        if constexpr (kRowTypes<X, D>) {
          if (whole) return backward_whole_rows<X, D>(stream, a, blocks, rows_of_block);
        }
        if (a.x.cols > kWidestBackward) {
          wide_backward_kernel<X, D><<<blocks, 256, 0, native(stream)>>>(a, rows_of_block, aligned);
        } else {
          constexpr int kPacks = static_cast<int>(kWidestBackward) / (kWarp * kPack<X>);
          backward_kernel<kPacks, X, D><<<blocks, dim3(kWarp, kBackwardWarps), 0, native(stream)>>>(a, rows_of_block);
        }
      });
    });
  }
  const std::int64_t capacity = std::int64_t{blocks} * a.x.cols;
  launch_sum_parts(stream, {a.scratch, a.dgamma}, {a.scratch + capacity, a.dbeta}, a.x, rows_of_block, a.x.cols);
}

}  // namespace twinlens
