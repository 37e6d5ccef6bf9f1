#include "kernels/cuda/device/element.cuh"
#include "kernels/cuda/device/launch.cuh"
#include "kernels/cuda/device/packed.cuh"
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

// Calls use(r, row) for the rows of a thread in order. kAhead of them, as `load(r, row)` gets them, are on their way at a time: a row stays
// as it is stored until all are asked for, since a conversion between two loads waits for the first.
constexpr int kAhead = 4;
template <class Row, class Load, class Use>
__device__ void for_rows(const Share& s, Load&& load, Use&& use) {
  const std::int64_t step = blockDim.y;
  for (std::int64_t r = s.begin + threadIdx.y; r < s.end; r += kAhead * step) {
    Row rows[kAhead];
#pragma unroll
    for (int i = 0; i < kAhead; ++i) {
      if (r + i * step < s.end) load(r + i * step, rows[i]);
    }
#pragma unroll
    for (int i = 0; i < kAhead; ++i) {
      if (r + i * step < s.end) use(r + i * step, rows[i]);
    }
  }
}

// --- statistics ------------------------------------------------------------------------------------------------------------------------
// How many values, their mean, and the squares around it. Joined as in Chan, Golub & LeVeque 1983, "Algorithms for computing the sample
// variance".
struct Moments {
  float count = 0.0F;
  float mean[W] = {}, squares[W] = {};
  __device__ void join(float other_count, const float (&other_mean)[W], const float (&other_squares)[W]) {
    if (other_count == 0.0F) return;
    const float all = count + other_count, weight = other_count / all;
#pragma unroll
    for (int k = 0; k < W; ++k) {
      const float away = other_mean[k] - mean[k];
      mean[k] += away * weight;
      squares[k] += other_squares[k] + away * away * (count * weight);
    }
    count = all;
  }
};

// Rows [from, end), every step-th, kRows of them at most, in registers: x is read once.
constexpr int kRows = 8;
template <class T>
__device__ Moments moments_of(const ConstRows& x, std::int64_t from, std::int64_t end, unsigned step, const Share& s, bool aligned) {
  Packed<W, T> packed[kRows];
  float v[kRows][W];
  int count = 0;
#pragma unroll
  for (int i = 0; i < kRows; ++i) {
    const std::int64_t r = from + std::int64_t{i} * step;
    packed[i] = {};
    if (r < end) {
      load_packed(row_of<T>(x, r) + s.column, s.left, aligned, packed[i]);
      ++count;
    }
  }
#pragma unroll
  for (int i = 0; i < kRows; ++i) unpack(packed[i], v[i]);
  Moments m;
  m.count = static_cast<float>(count);
  const float inverse = 1.0F / m.count;
#pragma unroll
  for (int k = 0; k < W; ++k) {
#pragma unroll
    for (int i = 0; i < kRows; ++i) m.mean[k] += v[i][k];  // 0 where there is no row
    m.mean[k] *= inverse;
#pragma unroll
    for (int i = 0; i < kRows; ++i) m.squares[k] += i < count ? (v[i][k] - m.mean[k]) * (v[i][k] - m.mean[k]) : 0.0F;
  }
  return m;
}

// parts[0][part][column]: mean, parts[1]: squares of a part; a thread's rows in order, then the threads of a column in order.
template <class T>
__global__ void __launch_bounds__(256) part_moments_kernel(ConstRows x, std::int64_t rows_per_part, bool aligned, float* parts) {
  __shared__ float means[256 * W], squares[256 * W];
  const Share s = share_of(valid_rows(x), x.cols, rows_per_part);
  Moments m;
  if (s.left > 0) {
    for (std::int64_t r = s.begin + threadIdx.y; r < s.end; r += kRows * blockDim.y) {
      const Moments next = moments_of<T>(x, r, s.end, blockDim.y, s, aligned);
      m.join(next.count, next.mean, next.squares);
    }
  }
  const unsigned own = threadIdx.y * blockDim.x + threadIdx.x;
#pragma unroll
  for (int k = 0; k < W; ++k) {
    means[own * W + k] = m.mean[k];
    squares[own * W + k] = m.squares[k];
  }
  __syncthreads();
  if (threadIdx.y != 0 || s.left <= 0) return;
  for (unsigned y = 1; y < blockDim.y; ++y) {
    const std::int64_t rows = s.end - s.begin - y;
    const float count = rows > 0 ? static_cast<float>((rows + blockDim.y - 1) / blockDim.y) : 0.0F;
    float mean[W], square[W];
#pragma unroll
    for (int k = 0; k < W; ++k) {
      mean[k] = means[(y * blockDim.x + threadIdx.x) * W + k];
      square[k] = squares[(y * blockDim.x + threadIdx.x) * W + k];
    }
    m.join(count, mean, square);
  }
  store_pack(m.mean, parts + std::int64_t{blockIdx.x} * x.cols + s.column, s.left, false);
  store_pack(m.squares, parts + (std::int64_t{gridDim.x} + blockIdx.x) * x.cols + s.column, s.left, false);
}

constexpr int kSlices = 16;  // of the parts that are joined

// `sum` of a column's threads of a block, in every one of them, in order.
__device__ double column_total(double sum, double (&slices)[kSlices][kWarp]) {
  __syncthreads();  // an earlier total may still be read
  slices[threadIdx.y][threadIdx.x] = sum;
  __syncthreads();
  sum = slices[0][threadIdx.x];
  for (int s = 1; s < kSlices; ++s) sum += slices[s][threadIdx.x];
  return sum;
}

// Joins the parts in double, since statistics go into every value behind them.
__global__ void __launch_bounds__(kSlices* kWarp) moments_kernel(BatchNormStatistics a, std::int64_t parts, std::int64_t rows_per_part) {
  __shared__ double slices[kSlices][kWarp];
  const std::int64_t cols = a.x.cols, column = std::int64_t{blockIdx.x} * kWarp + threadIdx.x, rows = valid_rows(a.x);
  const float *means = a.scratch, *squares = a.scratch + parts * cols;
  const std::int64_t with_rows = parts == 0 ? 0 : (rows + rows_per_part - 1) / rows_per_part;
  const std::int64_t count_of_parts = column >= cols ? 0 : with_rows < parts ? with_rows : parts;
  const auto over_parts = [&](auto term) {
    double sum = 0.0;
#pragma unroll 8
    for (std::int64_t p = threadIdx.y; p < count_of_parts; p += kSlices) {
      const std::int64_t left = rows - p * rows_per_part;
      sum += term(p * cols + column, static_cast<double>(left < rows_per_part ? left : rows_per_part));
    }
    return column_total(sum, slices);
  };
  const double inverse = rows > 0 ? 1.0 / static_cast<double>(rows) : 0.0;
  const double mean = over_parts([&](std::int64_t at, double count) { return count * static_cast<double>(means[at]); }) * inverse;
  const double variance = over_parts([&](std::int64_t at, double count) {
                            const double away = static_cast<double>(means[at]) - mean;
                            return static_cast<double>(squares[at]) + count * away * away;
                          }) *
                          inverse;
  if (threadIdx.y != 0 || column >= cols) return;
  a.mean[column] = static_cast<float>(mean);
  a.variance[column] = static_cast<float>(variance);
}

// --- gradients -------------------------------------------------------------------------------------------------------------------------
// g and xhat of a backward row.
template <class T>
struct Gradient {
  BatchNormBackward a;
  bool aligned;
  float mean[W], rstd[W], gamma[W], beta[W];
  __device__ void prepare(std::int64_t column, std::int64_t left) {
    load_pack(a.mean + column, left, false, mean);
    load_pack(a.variance + column, left, false, rstd);
    load_pack(a.gamma + column, left, false, gamma);
    load_pack(a.beta + column, left, false, beta);
#pragma unroll
    for (int k = 0; k < W; ++k) rstd[k] = rstd_of(rstd[k], a.eps);
  }
  struct Row {
    Packed<W, T> dy, x, y;
  };
  __device__ void load(std::int64_t r, std::int64_t column, std::int64_t left, Row& row) const {
    load_packed(row_of<T>(a.dy, r) + column, left, aligned, row.dy);
    load_packed(row_of<T>(a.x, r) + column, left, aligned, row.x);
    if (a.relu && a.y.data != nullptr) load_packed(row_of<T>(a.y, r) + column, left, aligned, row.y);
  }
  // Where the relu let through is seen from y, or, where there was no residual, from what y was made of.
  __device__ void values(const Row& row, float (&g)[W], float (&xhat)[W]) const {
    unpack(row.dy, g);
    unpack(row.x, xhat);
#pragma unroll
    for (int k = 0; k < W; ++k) xhat[k] = (xhat[k] - mean[k]) * rstd[k];
    if (!a.relu) return;
    float y[W];
    if (a.y.data != nullptr) {
      unpack(row.y, y);
    } else {
#pragma unroll
      for (int k = 0; k < W; ++k) y[k] = fmaf(xhat[k], gamma[k], beta[k]);
    }
#pragma unroll
    for (int k = 0; k < W; ++k) g[k] = y[k] > 0.0F ? g[k] : 0.0F;
  }
};

// parts[sum][part][column] of g and g xhat: a thread's rows in order, then the threads of a column in order.
template <class T>
__global__ void __launch_bounds__(256) part_sums_kernel(Gradient<T> gradient, std::int64_t rows_per_part, float* parts) {
  constexpr int kSums = 2;
  __shared__ float of_thread[kSums][256 * W];
  const ConstRows& x = gradient.a.x;
  const Share s = share_of(valid_rows(x), x.cols, rows_per_part);
  float sum[kSums][W] = {};
  if (s.left > 0) {
    gradient.prepare(s.column, s.left);
    using Row = typename Gradient<T>::Row;
    for_rows<Row>(
        s, [&](std::int64_t r, Row& row) { gradient.load(r, s.column, s.left, row); },
        [&](std::int64_t, const Row& row) {
          float g[W], xhat[W];
          gradient.values(row, g, xhat);
#pragma unroll
          for (int k = 0; k < W; ++k) {
            sum[0][k] += g[k];
            sum[1][k] += g[k] * xhat[k];
          }
        });
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
  for (int i = 0; i < kSums; ++i) store_pack(sum[i], parts + (i * std::int64_t{gridDim.x} + blockIdx.x) * x.cols + s.column, s.left, false);
}

// out[blockIdx.y][c] = sum over parts, in double.
struct Totals {
  const float* parts;
  std::int64_t count, cols;  // of parts
  float* out[2];
};
__global__ void __launch_bounds__(kSlices* kWarp) total_kernel(Totals t) {
  __shared__ double slices[kSlices][kWarp];
  const std::int64_t column = std::int64_t{blockIdx.x} * kWarp + threadIdx.x;
  const float* from = t.parts + std::int64_t{blockIdx.y} * t.count * t.cols;
  double sum = 0.0;
  if (column < t.cols) {
#pragma unroll 4
    for (std::int64_t p = threadIdx.y; p < t.count; p += kSlices) sum += static_cast<double>(from[p * t.cols + column]);
  }
  sum = column_total(sum, slices);
  if (threadIdx.y == 0 && column < t.cols) t.out[blockIdx.y][column] = static_cast<float>(sum);
}

// --- elementwise -------------------------------------------------------------------------------------------------------------------------
template <class T>
__global__ void __launch_bounds__(256) forward_kernel(BatchNormForward a, std::int64_t rows_per_part, bool aligned) {
  const Share s = share_of(valid_rows(a.x), a.x.cols, rows_per_part);
  if (s.left <= 0) return;
  float mean[W], scale[W], gamma[W], beta[W];
  load_pack(a.mean + s.column, s.left, false, mean);
  load_pack(a.variance + s.column, s.left, false, scale);
  load_pack(a.gamma + s.column, s.left, false, gamma);
  load_pack(a.beta + s.column, s.left, false, beta);
#pragma unroll
  for (int k = 0; k < W; ++k) scale[k] = rstd_of(scale[k], a.eps);
  struct Row {
    Packed<W, T> x, residual;
  };
  const bool adds = a.residual.data != nullptr;
  for_rows<Row>(
      s,
      [&](std::int64_t r, Row& row) {
        load_packed(row_of<T>(a.x, r) + s.column, s.left, aligned, row.x);
        if (adds) load_packed(row_of<T>(a.residual, r) + s.column, s.left, aligned, row.residual);
      },
      [&](std::int64_t r, const Row& row) {
        float v[W], residual[W];
        unpack(row.x, v);
        if (adds) unpack(row.residual, residual);
#pragma unroll
        for (int k = 0; k < W; ++k) {
          v[k] = fmaf((v[k] - mean[k]) * scale[k], gamma[k], beta[k]);
          if (adds) v[k] += residual[k];
          if (a.relu) v[k] = v[k] < 0.0F ? 0.0F : v[k];
        }
        store_pack(v, row_of<T>(a.y, r) + s.column, s.left, aligned);
      });
}

// Blocks on a multiprocessor: with two bytes an element a few registers less (one word is spilled) make room for a third, and for half as
// many rows more on their way.
template <class T>
constexpr int kBackwardBlocks = sizeof(T) == 2 ? 3 : 2;
template <class T>
__global__ void __launch_bounds__(256, kBackwardBlocks<T>) backward_kernel(Gradient<T> gradient, std::int64_t rows_per_part) {
  const BatchNormBackward& a = gradient.a;
  const std::int64_t rows = valid_rows(a.x);
  const Share s = share_of(rows, a.x.cols, rows_per_part);
  if (s.left <= 0) return;
  gradient.prepare(s.column, s.left);
  float scale[W], offset[W] = {}, slope[W] = {};  // dx = scale (g - offset - slope xhat)
  if (a.batch_statistics) {
    load_pack(a.dbeta + s.column, s.left, false, offset);
    load_pack(a.dgamma + s.column, s.left, false, slope);
  }
  const float inverse = 1.0F / static_cast<float>(rows);
#pragma unroll
  for (int k = 0; k < W; ++k) {
    scale[k] = gradient.gamma[k] * gradient.rstd[k];
    offset[k] *= inverse;
    slope[k] *= inverse;
  }
  using Row = typename Gradient<T>::Row;
  for_rows<Row>(
      s, [&](std::int64_t r, Row& row) { gradient.load(r, s.column, s.left, row); },
      [&](std::int64_t r, const Row& row) {
        float g[W], xhat[W];
        gradient.values(row, g, xhat);
        if (a.dresidual.data != nullptr) store_pack(g, row_of<T>(a.dresidual, r) + s.column, s.left, gradient.aligned);
        if (a.dx.data == nullptr) return;
#pragma unroll
        for (int k = 0; k < W; ++k) g[k] = (g[k] - (offset[k] + xhat[k] * slope[k])) * scale[k];
        store_pack(g, row_of<T>(a.dx, r) + s.column, s.left, gradient.aligned);
      });
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
  if (geometry.parts > 0) {
    visit_cuda_float(a.x.dtype, [&]<class T>(TypeTag<T>) {
      part_moments_kernel<T><<<dim3(geometry.parts, geometry.strips), dim3(geometry.threads_x, geometry.threads_y), 0, native(stream)>>>(
          a.x, geometry.rows_per_part, aligned, a.scratch);
    });
  }
  // Also for no rows: the moments of nothing are written as 0.
  moments_kernel<<<static_cast<unsigned>(ceil_div(a.x.cols, kWarp)), dim3(kWarp, kSlices), 0, native(stream)>>>(a, geometry.parts,
                                                                                                                geometry.rows_per_part);
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
    const Gradient<T> gradient{a, aligned, {}, {}, {}, {}};
    if (geometry.parts > 0) {
      part_sums_kernel<T><<<dim3(geometry.parts, geometry.strips), dim3(geometry.threads_x, geometry.threads_y), 0, native(stream)>>>(
          gradient, geometry.rows_per_part, a.scratch);
    }
    total_kernel<<<dim3(static_cast<unsigned>(ceil_div(a.x.cols, kWarp)), 2), dim3(kWarp, kSlices), 0, native(stream)>>>(
        Totals{a.scratch, geometry.parts, a.x.cols, {a.dbeta, a.dgamma}});
    if (geometry.parts == 0 || (a.dx.data == nullptr && a.dresidual.data == nullptr)) return;
    backward_kernel<T><<<dim3(geometry.parts, geometry.strips), dim3(geometry.threads_x, geometry.threads_y), 0, native(stream)>>>(
        gradient, geometry.rows_per_part);
  });
}

}  // namespace twinlens
