#include "kernels/cuda/device/element.cuh"
#include "kernels/cuda/device/launch.cuh"
#include "kernels/cuda/device/rows.cuh"

#include "twinlens/kernels/batch_norm.h"

namespace twinlens {
namespace {

using namespace cuda;

constexpr int W = ColumnLaunch::kPack;

__device__ float rstd_of(float variance, float eps) { return 1.0F / sqrtf(variance + eps); }

// The rows and columns of a thread.
struct Share {
  std::int64_t begin, end, column, left;  // rows; first column, columns from there
};
__device__ Share share_of(std::int64_t rows, std::int64_t cols, std::int64_t rows_per_part) {
  Share s;
  s.begin = std::int64_t{blockIdx.x} * rows_per_part;
  s.end = s.begin + rows_per_part < rows ? s.begin + rows_per_part : rows;
  s.column = (std::int64_t{blockIdx.y} * blockDim.x + threadIdx.x) * W;
  s.left = cols - s.column;
  return s;
}

// --- terms of the sums over rows: prepare(columns), then terms of a row ------------------------------------------------------------------
template <class T>
struct SumTerms {
  static constexpr int kSums = 1;
  ConstRows x;
  bool aligned;
  __device__ void prepare(std::int64_t, std::int64_t) {}
  __device__ void operator()(std::int64_t r, std::int64_t column, std::int64_t left, float (&term)[kSums][W]) const {
    load_pack(row_of<T>(x, r) + column, left, aligned, term[0]);
  }
};

template <class T>
struct SquareTerms {
  static constexpr int kSums = 1;
  ConstRows x;
  const float* mean;
  bool aligned;
  float m[W];
  __device__ void prepare(std::int64_t column, std::int64_t left) { load_pack(mean + column, left, false, m); }
  __device__ void operator()(std::int64_t r, std::int64_t column, std::int64_t left, float (&term)[kSums][W]) const {
    load_pack(row_of<T>(x, r) + column, left, aligned, term[0]);
#pragma unroll
    for (int k = 0; k < W; ++k) term[0][k] = (term[0][k] - m[k]) * (term[0][k] - m[k]);
  }
};

// g and xhat of a backward row.
template <class T>
struct Gradient {
  BatchNormBackward a;
  bool aligned;
  float mean[W], rstd[W];
  __device__ void prepare(std::int64_t column, std::int64_t left) {
    load_pack(a.mean + column, left, false, mean);
    load_pack(a.variance + column, left, false, rstd);
#pragma unroll
    for (int k = 0; k < W; ++k) rstd[k] = rstd_of(rstd[k], a.eps);
  }
  __device__ void load(std::int64_t r, std::int64_t column, std::int64_t left, float (&g)[W], float (&xhat)[W]) const {
    load_pack(row_of<T>(a.dy, r) + column, left, aligned, g);
    load_pack(row_of<T>(a.x, r) + column, left, aligned, xhat);
#pragma unroll
    for (int k = 0; k < W; ++k) xhat[k] = (xhat[k] - mean[k]) * rstd[k];
    if (!a.relu) return;
    float y[W];
    load_pack(row_of<T>(a.y, r) + column, left, aligned, y);
#pragma unroll
    for (int k = 0; k < W; ++k) g[k] = y[k] > 0.0F ? g[k] : 0.0F;
  }
};

template <class T>
struct GradientTerms {
  static constexpr int kSums = 2;
  ConstRows x;
  Gradient<T> gradient;
  __device__ void prepare(std::int64_t column, std::int64_t left) { gradient.prepare(column, left); }
  __device__ void operator()(std::int64_t r, std::int64_t column, std::int64_t left, float (&term)[kSums][W]) const {
    float xhat[W];
    gradient.load(r, column, left, term[0], xhat);
#pragma unroll
    for (int k = 0; k < W; ++k) term[1][k] = term[0][k] * xhat[k];
  }
};

// parts[sum][part][column]: a thread's rows in order, then the threads of a column in order.
template <class Terms>
__global__ void __launch_bounds__(256) part_sums_kernel(Terms terms, std::int64_t rows_per_part, float* parts) {
  constexpr int kSums = Terms::kSums;
  __shared__ float of_thread[kSums][256 * W];
  const std::int64_t cols = terms.x.cols;
  const Share s = share_of(valid_rows(terms.x), cols, rows_per_part);
  float sum[kSums][W] = {};
  if (s.left > 0) {
    terms.prepare(s.column, s.left);
    for (std::int64_t r = s.begin + threadIdx.y; r < s.end; r += blockDim.y) {
      float term[kSums][W];
      terms(r, s.column, s.left, term);
#pragma unroll
      for (int i = 0; i < kSums; ++i) {
#pragma unroll
        for (int k = 0; k < W; ++k) sum[i][k] += term[i][k];
      }
    }
  }
  const unsigned own = threadIdx.y * blockDim.x + threadIdx.x;
#pragma unroll
  for (int i = 0; i < kSums; ++i) {
#pragma unroll
    for (int k = 0; k < W; ++k) of_thread[i][own * W + k] = sum[i][k];
  }
  __syncthreads();
  if (threadIdx.y != 0 || s.left <= 0) return;
  for (unsigned y = 1; y < blockDim.y; ++y) {
#pragma unroll
    for (int i = 0; i < kSums; ++i) {
#pragma unroll
      for (int k = 0; k < W; ++k) sum[i][k] += of_thread[i][(y * blockDim.x + threadIdx.x) * W + k];
    }
  }
#pragma unroll
  for (int i = 0; i < kSums; ++i) store_pack(sum[i], parts + (i * std::int64_t{gridDim.x} + blockIdx.x) * cols + s.column, s.left, false);
}

// out[blockIdx.y][c] = sum over parts, in double since statistics go into every value behind them; or the mean over the rows.
constexpr int kSlices = 16;
struct Totals {
  const float* parts;
  std::int64_t count;  // of parts
  ConstRows x;
  float* out[2];
  bool mean;
};
__global__ void __launch_bounds__(kSlices* kWarp) total_kernel(Totals t) {
  __shared__ double slices[kSlices][kWarp];
  const std::int64_t cols = t.x.cols, column = std::int64_t{blockIdx.x} * kWarp + threadIdx.x;
  const float* from = t.parts + std::int64_t{blockIdx.y} * t.count * cols;
  double sum = 0.0;
  if (column < cols) {
#pragma unroll 4
    for (std::int64_t p = threadIdx.y; p < t.count; p += kSlices) sum += static_cast<double>(from[p * cols + column]);
  }
  slices[threadIdx.y][threadIdx.x] = sum;
  __syncthreads();
  if (threadIdx.y != 0 || column >= cols) return;
  for (int s = 1; s < kSlices; ++s) sum += slices[s][threadIdx.x];
  const std::int64_t rows = valid_rows(t.x);
  if (t.mean) sum = rows > 0 ? sum / static_cast<double>(rows) : 0.0;
  t.out[blockIdx.y][column] = static_cast<float>(sum);
}

template <class Terms>
void column_sums(Stream& stream, const ColumnLaunch& launch, const Terms& terms, float* scratch, float* first, float* second, bool mean) {
  const std::int64_t cols = terms.x.cols;
  if (launch.parts > 0) {
    part_sums_kernel<<<dim3(launch.parts, launch.strips), dim3(launch.threads_x, launch.threads_y), 0, native(stream)>>>(
        terms, launch.rows_per_part, scratch);
  }
  // Also for no rows: the sums over nothing are written as 0.
  total_kernel<<<dim3(static_cast<unsigned>(ceil_div(cols, kWarp)), Terms::kSums), dim3(kWarp, kSlices), 0, native(stream)>>>(
      Totals{scratch, launch.parts, terms.x, {first, second}, mean});
}

// --- elementwise -------------------------------------------------------------------------------------------------------------------------
template <class T>
__global__ void __launch_bounds__(256) forward_kernel(BatchNormForward a, std::int64_t rows_per_part, bool aligned) {
  const Share s = share_of(valid_rows(a.x), a.x.cols, rows_per_part);
  if (s.left <= 0) return;
  float mean[W], scale[W], gamma[W], beta[W], v[W], residual[W];
  load_pack(a.mean + s.column, s.left, false, mean);
  load_pack(a.variance + s.column, s.left, false, scale);
  load_pack(a.gamma + s.column, s.left, false, gamma);
  load_pack(a.beta + s.column, s.left, false, beta);
#pragma unroll
  for (int k = 0; k < W; ++k) scale[k] = rstd_of(scale[k], a.eps);
  for (std::int64_t r = s.begin + threadIdx.y; r < s.end; r += blockDim.y) {
    load_pack(row_of<T>(a.x, r) + s.column, s.left, aligned, v);
    if (a.residual.data != nullptr) load_pack(row_of<T>(a.residual, r) + s.column, s.left, aligned, residual);
#pragma unroll
    for (int k = 0; k < W; ++k) {
      v[k] = (v[k] - mean[k]) * scale[k] * gamma[k] + beta[k];
      if (a.residual.data != nullptr) v[k] += residual[k];
      if (a.relu) v[k] = v[k] < 0.0F ? 0.0F : v[k];
    }
    store_pack(v, row_of<T>(a.y, r) + s.column, s.left, aligned);
  }
}

template <class T>
__global__ void __launch_bounds__(256) backward_kernel(Gradient<T> gradient, std::int64_t rows_per_part) {
  const BatchNormBackward& a = gradient.a;
  const std::int64_t rows = valid_rows(a.x);
  const Share s = share_of(rows, a.x.cols, rows_per_part);
  if (s.left <= 0) return;
  gradient.prepare(s.column, s.left);
  float scale[W], offset[W] = {}, slope[W] = {}, g[W], xhat[W];  // dx = scale (g - offset - slope xhat)
  load_pack(a.gamma + s.column, s.left, false, scale);
  if (a.batch_statistics) {
    load_pack(a.dbeta + s.column, s.left, false, offset);
    load_pack(a.dgamma + s.column, s.left, false, slope);
  }
  const float inverse = 1.0F / static_cast<float>(rows);
#pragma unroll
  for (int k = 0; k < W; ++k) {
    scale[k] *= gradient.rstd[k];
    offset[k] *= inverse;
    slope[k] *= inverse;
  }
  for (std::int64_t r = s.begin + threadIdx.y; r < s.end; r += blockDim.y) {
    gradient.load(r, s.column, s.left, g, xhat);
    if (a.dresidual.data != nullptr) store_pack(g, row_of<T>(a.dresidual, r) + s.column, s.left, gradient.aligned);
    if (a.dx.data == nullptr) continue;
#pragma unroll
    for (int k = 0; k < W; ++k) g[k] = (g[k] - (offset[k] + xhat[k] * slope[k])) * scale[k];
    store_pack(g, row_of<T>(a.dx, r) + s.column, s.left, gradient.aligned);
  }
}

template <class R>
bool aligned_rows(const R& x) {
  return x.data == nullptr || packs_are_aligned(x.data, x.stride, size_of(x.dtype), W);
}

}  // namespace

void launch(Cuda, Stream& stream, const BatchNormStatistics& a) {
  if (a.x.cols == 0) return;
  const ColumnLaunch geometry = column_launch(a.x.rows, a.x.cols);
  const bool aligned = aligned_rows(a.x);
  visit_cuda_float(a.x.dtype, [&]<class T>(TypeTag<T>) {
    column_sums(stream, geometry, SumTerms<T>{a.x, aligned}, a.scratch, a.mean, nullptr, true);
    column_sums(stream, geometry, SquareTerms<T>{a.x, a.mean, aligned, {}}, a.scratch, a.variance, nullptr, true);
  });
}

void launch(Cuda, Stream& stream, const BatchNormForward& a) {
  const ColumnLaunch geometry = column_launch(a.x.rows, a.x.cols);
  if (geometry.parts == 0) return;
  const bool aligned = aligned_rows(a.x) && aligned_rows(a.residual) && aligned_rows(a.y);
  visit_cuda_float(a.x.dtype, [&]<class T>(TypeTag<T>) {
    forward_kernel<T><<<dim3(geometry.parts, geometry.strips), dim3(geometry.threads_x, geometry.threads_y), 0, native(stream)>>>(
        a, geometry.rows_per_part, aligned);
  });
}

void launch(Cuda, Stream& stream, const BatchNormBackward& a) {
  if (a.x.cols == 0) return;
  const ColumnLaunch geometry = column_launch(a.x.rows, a.x.cols);
  const bool aligned = aligned_rows(a.x) && aligned_rows(a.y) && aligned_rows(a.dy) && aligned_rows(a.dx) && aligned_rows(a.dresidual);
  visit_cuda_float(a.x.dtype, [&]<class T>(TypeTag<T>) {
    const Gradient<T> gradient{a, aligned, {}, {}};
    column_sums(stream, geometry, GradientTerms<T>{a.x, gradient}, a.scratch, a.dbeta, a.dgamma, false);
    if (geometry.parts == 0 || (a.dx.data == nullptr && a.dresidual.data == nullptr)) return;
    backward_kernel<T><<<dim3(geometry.parts, geometry.strips), dim3(geometry.threads_x, geometry.threads_y), 0, native(stream)>>>(
        gradient, geometry.rows_per_part);
  });
}

}  // namespace twinlens
