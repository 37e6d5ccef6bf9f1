#include "kernels/cuda/device/launch.cuh"
#include "kernels/cuda/device/rows.cuh"

#include "twinlens/kernels/info_nce.h"

namespace twinlens {
namespace {

using namespace cuda;

constexpr int kThreads = 256;       // for a row
constexpr int kSlices = 32;         // threads that share the rows of a column: blocks are few, 128 for a tile of 4,096 columns
constexpr float kLeftOut = -1e30F;  // as on the CPU

__device__ float exp_of(const float* logarithm) { return static_cast<float>(exp(static_cast<double>(*logarithm))); }
__device__ double missing(float loss) { return -expm1(-static_cast<double>(loss)); }

// Sums and maxima over the threads of a block of kThreads, in a fixed order, in every thread.
template <class T, class F>
__device__ T block_reduce(T x, F combine) {
  __shared__ T of_warp[kThreads / kWarp];
#pragma unroll
  for (int offset = kWarp / 2; offset > 0; offset /= 2) x = combine(x, __shfl_xor_sync(0xFFFFFFFFU, x, offset));
  __syncthreads();  // an earlier result may still be read
  if (threadIdx.x % kWarp == 0) of_warp[threadIdx.x / kWarp] = x;
  __syncthreads();
  x = of_warp[0];
#pragma unroll
  for (int w = 1; w < kThreads / kWarp; ++w) x = combine(x, of_warp[w]);
  return x;
}
template <class T>
__device__ T block_sum(T x) {
  return block_reduce(x, [](T a, T b) { return a + b; });
}
__device__ float larger(float a, float b) { return b > a ? b : a; }

__device__ std::int64_t own_place(const InfoNceTile& t, std::int64_t r) { return t.first_row + r + t.offset - t.first_column; }
__device__ bool left_out(const InfoNceTile& t, std::int64_t r, std::int64_t j) {
  return t.row_ids != nullptr && t.row_ids[t.first_row + r] == t.column_ids[t.first_column + j];
}
// A cosine as a logit; own and left-out ones do not count.
__device__ float logit_of(const InfoNceTile& t, std::int64_t r, std::int64_t j, float cosine, float scale) {
  return j == own_place(t, r) || left_out(t, r, j) ? kLeftOut : cosine * scale;
}

__global__ void diagonal_kernel(InfoNceDiagonal a) {
  const std::int64_t i = blockIdx.x;
  const float* u = row_of<float>(a.rows, i);
  const float* v = row_of<float>(a.columns, i + a.offset);
  double sum = 0.0;
  for (std::int64_t k = threadIdx.x; k < a.rows.cols; k += kThreads) sum += static_cast<double>(u[k]) * static_cast<double>(v[k]);
  sum = block_sum(sum);
  if (threadIdx.x != 0) return;
  const double own = exp(static_cast<double>(*a.logit_scale)) * sum;
  a.high[i] = static_cast<float>(own);
  const double rest = own - static_cast<double>(a.high[i]);
  a.low[i] = rest == rest ? static_cast<float>(rest) : 0.0F;
}

// A block for a row of the tile. A thread reads only what it has written itself.
__global__ void __launch_bounds__(kThreads) row_statistics_kernel(InfoNceStatistics a) {
  const std::int64_t r = blockIdx.x, i = a.tile.first_row + r, c = a.tile.logits.cols;
  float* x = row_of<float>(a.tile.logits, r);
  const float scale = exp_of(a.tile.logit_scale), high = a.row_own.high[i], before = a.rows.max[i];
  float largest = kLeftOut;
  for (std::int64_t j = threadIdx.x; j < c; j += kThreads) {
    x[j] = logit_of(a.tile, r, j, x[j], scale);
    largest = larger(largest, x[j]);
  }
  largest = block_reduce(largest, [](float p, float q) { return larger(p, q); });
  const float now = larger(before, largest - high);
  float sum = 0.0F;
  for (std::int64_t j = threadIdx.x; j < c; j += kThreads) sum += expf((x[j] - high) - now);
  sum = block_sum(sum);
  if (threadIdx.x != 0) return;
  a.rows.sum[i] = a.rows.sum[i] * expf(before - now) + sum;
  a.rows.max[i] = now;
}

// (kWarp, kSlices) threads for kWarp columns: a slice takes every kSlices-th row, then the slices are combined in order.
__global__ void __launch_bounds__(kWarp* kSlices) column_statistics_kernel(InfoNceStatistics a) {
  __shared__ float of_slice[kSlices][kWarp];
  const std::int64_t j = std::int64_t{blockIdx.x} * kWarp + threadIdx.x, c = a.tile.first_column + j;
  const bool here = j < a.tile.logits.cols;
  float largest = kLeftOut;
  for (std::int64_t r = threadIdx.y; here && r < a.tile.logits.rows; r += kSlices) {
    largest = larger(largest, row_of<float>(a.tile.logits, r)[j]);
  }
  of_slice[threadIdx.y][threadIdx.x] = largest;
  __syncthreads();
  for (int s = 0; s < kSlices; ++s) largest = larger(largest, of_slice[s][threadIdx.x]);
  __syncthreads();
  const float high = here ? a.column_own.high[c] : 0.0F, before = here ? a.columns.max[c] : 0.0F, now = larger(before, largest - high);
  float sum = 0.0F;
  for (std::int64_t r = threadIdx.y; here && r < a.tile.logits.rows; r += kSlices) {
    sum += expf((row_of<float>(a.tile.logits, r)[j] - high) - now);
  }
  of_slice[threadIdx.y][threadIdx.x] = sum;
  __syncthreads();
  if (threadIdx.y != 0 || !here) return;
  for (int s = 1; s < kSlices; ++s) sum += of_slice[s][threadIdx.x];
  a.columns.sum[c] = a.columns.sum[c] * expf(before - now) + sum;
  a.columns.max[c] = now;
}

struct Targets {
  float row, column;
};
__device__ Targets targets_of(const InfoNceTile& t, const InfoNceTeacher& teacher, float scale, std::int64_t r, std::int64_t j) {
  const std::int64_t i = t.first_row + r, c = t.first_column + j;
  const float x = row_of<float>(teacher.logits, r)[j] * scale;
  return {expf(x - teacher.rows.shift[i]) * teacher.rows.factor[i], expf(x - teacher.columns.shift[c]) * teacher.columns.factor[c]};
}

// With a teacher, after the statistics: targets times distances from the own pair. Those of the columns are left in the teacher's tile.
__global__ void __launch_bounds__(kThreads) row_cross_kernel(InfoNceStatistics a) {
  const std::int64_t r = blockIdx.x, i = a.tile.first_row + r, own = own_place(a.tile, r);
  const float* x = row_of<float>(a.tile.logits, r);
  float* to = row_of<float>(a.teacher.logits, r);
  const float scale = exp_of(a.teacher.logit_scale), high = a.row_own.high[i], low = a.row_own.low[i];
  float sum = 0.0F;
  for (std::int64_t j = threadIdx.x; j < a.tile.logits.cols; j += kThreads) {
    const std::int64_t c = a.tile.first_column + j;
    const Targets t = targets_of(a.tile, a.teacher, scale, r, j);
    sum += j == own ? 0.0F : t.row * (low - (x[j] - high));
    to[j] = j == own ? 0.0F : t.column * (a.column_own.low[c] - (x[j] - a.column_own.high[c]));
  }
  sum = block_sum(sum);
  if (threadIdx.x == 0) a.row_cross[i] += sum;
}
__global__ void __launch_bounds__(kWarp* kSlices) column_cross_kernel(InfoNceStatistics a) {
  __shared__ float of_slice[kSlices][kWarp];
  const std::int64_t j = std::int64_t{blockIdx.x} * kWarp + threadIdx.x;
  const bool here = j < a.tile.logits.cols;
  float sum = 0.0F;
  for (std::int64_t r = threadIdx.y; here && r < a.tile.logits.rows; r += kSlices) sum += row_of<float>(a.teacher.logits, r)[j];
  of_slice[threadIdx.y][threadIdx.x] = sum;
  __syncthreads();
  if (threadIdx.y != 0 || !here) return;
  for (int s = 1; s < kSlices; ++s) sum += of_slice[s][threadIdx.x];
  a.column_cross[a.tile.first_column + j] += sum;
}

__device__ void finish_softmax(const InfoNceSums& sums, const InfoNceOwn& own, const InfoNceSoftmax& out, std::int64_t i) {
  const auto high = static_cast<double>(own.high[i]), low = static_cast<double>(own.low[i]);
  const double z = static_cast<double>(sums.max[i]) - low + log(static_cast<double>(sums.sum[i]));
  const double loss = (z > 0.0 ? z : 0.0) + log1p(exp(-fabs(z))), end = high + low + loss;
  out.loss[i] = static_cast<float>(loss);
  out.shift[i] = static_cast<float>(end);
  out.factor[i] = static_cast<float>(exp(static_cast<double>(out.shift[i]) - end));
}
__global__ void losses_kernel(InfoNceLoss a) {
  const std::int64_t i = std::int64_t{blockIdx.x} * blockDim.x + threadIdx.x;
  if (i < a.row_count) finish_softmax(a.rows, a.row_own, a.row_softmax, i);
  if (i < a.column_count) finish_softmax(a.columns, a.column_own, a.column_softmax, i);
}
__global__ void __launch_bounds__(kThreads) loss_kernel(InfoNceLoss a) {
  double sum = 0.0;
  for (std::int64_t i = threadIdx.x; i < a.row_count; i += kThreads) {
    sum += static_cast<double>(a.row_softmax.loss[i]) + static_cast<double>(a.column_softmax.loss[i + a.offset]);
    if (a.row_cross != nullptr) sum += static_cast<double>(a.row_cross[i]) + static_cast<double>(a.column_cross[i + a.offset]);
  }
  sum = block_sum(sum);
  if (threadIdx.x == 0) *a.loss = a.row_count > 0 ? static_cast<float>(sum / (2.0 * static_cast<double>(a.row_count))) : 0.0F;
}

template <bool WithTeacher>
__global__ void __launch_bounds__(kThreads) gradient_kernel(InfoNceGradient a) {
  const InfoNceTile& t = a.tile;
  const std::int64_t r = blockIdx.x, i = t.first_row + r, own = own_place(t, r);
  float* x = row_of<float>(t.logits, r);
  const float scale = exp_of(t.logit_scale), factor = scale * a.weight * *a.dy;
  const float teacher_scale = WithTeacher ? exp_of(a.teacher.logit_scale) : 0.0F;
  const float high = a.row_own.high[i], low = a.row_own.low[i], shift = a.rows.shift[i], row_factor = a.rows.factor[i];
  float p_sum = 0.0F, q_sum = 0.0F, slope = 0.0F;
  for (std::int64_t j = threadIdx.x; j < t.logits.cols; j += kThreads) {
    const std::int64_t c = t.first_column + j;
    if (j == own) {
      double gone = missing(a.rows.loss[i]) + missing(a.columns.loss[c]);
      if (WithTeacher) gone -= missing(a.teacher.rows.loss[i]) + missing(a.teacher.columns.loss[c]);
      x[j] = -factor * static_cast<float>(gone);
      continue;
    }
    const float s = logit_of(t, r, j, x[j], scale), d = s - high, e = s - a.column_own.high[c], column_low = a.column_own.low[c];
    float p = expf(s - shift) * row_factor, q = expf(s - a.columns.shift[c]) * a.columns.factor[c];
    if (WithTeacher) {
      const Targets target = targets_of(t, a.teacher, teacher_scale, r, j);
      p -= target.row;
      q -= target.column;
    }
    p_sum += p;
    q_sum += q;
    slope += p * (d - low) + q * (e - column_low);
    x[j] = (p + q) * factor;
  }
  const double sums[3] = {block_sum(static_cast<double>(p_sum)), block_sum(static_cast<double>(q_sum)),
                          block_sum(static_cast<double>(slope))};
  if (threadIdx.x != 0) return;
  for (int k = 0; k < 3; ++k) a.row_sums[4 * i + k] += sums[k];
}

__device__ double gone_of(const float* loss, const float* teacher, std::int64_t i) {
  return missing(loss[i]) - (teacher != nullptr ? missing(teacher[i]) : 0.0);
}

__global__ void __launch_bounds__(kThreads) row_dots_kernel(InfoNceFinish a) {
  const std::int64_t i = blockIdx.x;
  const float* u = row_of<float>(a.rows, i);
  const float* du = row_of<float>(a.drows, i);
  double sum = 0.0;
  for (std::int64_t k = threadIdx.x; k < a.rows.cols; k += kThreads) sum += static_cast<double>(u[k]) * static_cast<double>(du[k]);
  sum = block_sum(sum);
  if (threadIdx.x == 0) a.row_sums[4 * i + 3] = sum;
}

__global__ void __launch_bounds__(kThreads) finish_kernel(InfoNceFinish a) {
  const std::int64_t n = a.rows.rows;
  const bool whole = n == a.column_count;
  double balance = 0.0, mass = 0.0, slope = 0.0, of_features = 0.0;
  for (std::int64_t i = threadIdx.x; i < n; i += kThreads) {
    const double* sums = a.row_sums + 4 * i;
    balance += sums[0] - gone_of(a.row_loss, a.teacher_row_loss, i);
    mass += missing(a.row_loss[i]);
    if (a.teacher_row_loss != nullptr) mass += missing(a.teacher_row_loss[i]);
    slope += sums[2];
    of_features += sums[3];
    if (!whole) continue;
    balance += sums[1] - gone_of(a.column_loss, a.teacher_column_loss, i);
    mass += missing(a.column_loss[i]);
    if (a.teacher_column_loss != nullptr) mass += missing(a.teacher_column_loss[i]);
  }
  balance = block_sum(balance);
  mass = block_sum(mass);
  slope = block_sum(slope);
  of_features = block_sum(of_features);
  if (threadIdx.x != 0) return;
  const double factor = static_cast<double>(a.weight) * static_cast<double>(*a.dy);
  const double scale = exp(static_cast<double>(*a.logit_scale)), tiny = 1e-6 * static_cast<double>(n);
  *a.dlogit_scale = static_cast<float>(factor * slope);
  a.identities[0] = n > 0 ? fabs(balance) / (mass + tiny) : 0.0;
  a.identities[1] =
      whole && n > 0 && factor != 0.0 && a.drows.data != nullptr ? fabs(of_features / factor - slope) / (scale * (mass + tiny)) : 0.0;
  if (a.poison && (a.identities[0] > InfoNceFinish::kBroken || a.identities[1] > InfoNceFinish::kBroken)) {
    *a.dlogit_scale = __int_as_float(0x7FC00000);
  }
}

__global__ void __launch_bounds__(kThreads) sigmoid_kernel(SigmoidLossTile a) {
  const InfoNceTile& t = a.tile;
  const std::int64_t r = blockIdx.x, own = own_place(t, r);
  float* x = row_of<float>(t.logits, r);
  const float scale = exp_of(t.logit_scale), bias = *a.logit_bias, factor = scale * a.weight;
  float loss = 0.0F, dbias = 0.0F, dscale = 0.0F;
  for (std::int64_t j = threadIdx.x; j < t.logits.cols; j += kThreads) {
    const bool is_own = j == own;
    const float s = !is_own && left_out(t, r, j) ? kLeftOut : x[j] * scale;
    const float v = is_own ? -(s + bias) : s + bias;
    const float slope = 1.0F / (1.0F + expf(-v)), g = is_own ? -slope : slope;
    loss += (v > 0.0F ? v : 0.0F) + log1pf(expf(-fabsf(v)));
    dbias += g;
    dscale += g * s;
    x[j] = g * factor;
  }
  const double sums[3] = {block_sum(static_cast<double>(loss)), block_sum(static_cast<double>(dbias)),
                          block_sum(static_cast<double>(dscale))};
  if (threadIdx.x != 0) return;
  for (int k = 0; k < 3; ++k) a.row_sums[3 * (t.first_row + r) + k] += sums[k];
}

__global__ void __launch_bounds__(kThreads) sigmoid_finish_kernel(SigmoidLossFinish a) {
  double sum = 0.0;
  for (std::int64_t i = threadIdx.x; i < a.row_count; i += kThreads) sum += a.row_sums[3 * i + blockIdx.x];
  sum = block_sum(sum);
  if (threadIdx.x == 0) *a.out[blockIdx.x] = static_cast<float>(sum * static_cast<double>(a.weight));
}

unsigned blocks_of(std::int64_t rows) { return static_cast<unsigned>(rows); }

}  // namespace

void launch(Cuda, Stream& stream, const InfoNceDiagonal& a) {
  if (a.rows.rows == 0) return;
  diagonal_kernel<<<blocks_of(a.rows.rows), kThreads, 0, native(stream)>>>(a);
}

void launch(Cuda, Stream& stream, const InfoNceStatistics& a) {
  if (a.tile.logits.rows == 0 || a.tile.logits.cols == 0) return;
  const dim3 slices(kWarp, kSlices);
  const auto strips = static_cast<unsigned>(ceil_div(a.tile.logits.cols, kWarp));
  row_statistics_kernel<<<blocks_of(a.tile.logits.rows), kThreads, 0, native(stream)>>>(a);
  column_statistics_kernel<<<strips, slices, 0, native(stream)>>>(a);
  if (a.teacher.logits.data == nullptr) return;
  row_cross_kernel<<<blocks_of(a.tile.logits.rows), kThreads, 0, native(stream)>>>(a);
  column_cross_kernel<<<strips, slices, 0, native(stream)>>>(a);
}

void launch(Cuda, Stream& stream, const InfoNceLoss& a) {
  const std::int64_t most = a.row_count > a.column_count ? a.row_count : a.column_count;
  if (most > 0) losses_kernel<<<static_cast<unsigned>(ceil_div(most, kThreads)), kThreads, 0, native(stream)>>>(a);
  loss_kernel<<<1, kThreads, 0, native(stream)>>>(a);
}

void launch(Cuda, Stream& stream, const InfoNceGradient& a) {
  if (a.tile.logits.rows == 0) return;
  const unsigned blocks = blocks_of(a.tile.logits.rows);
  if (a.teacher.logits.data != nullptr) {
    gradient_kernel<true><<<blocks, kThreads, 0, native(stream)>>>(a);
  } else {
    gradient_kernel<false><<<blocks, kThreads, 0, native(stream)>>>(a);
  }
}

void launch(Cuda, Stream& stream, const InfoNceFinish& a) {
  if (a.drows.data != nullptr && a.rows.rows > 0) row_dots_kernel<<<blocks_of(a.rows.rows), kThreads, 0, native(stream)>>>(a);
  finish_kernel<<<1, kThreads, 0, native(stream)>>>(a);
}

void launch(Cuda, Stream& stream, const SigmoidLossTile& a) {
  if (a.tile.logits.rows == 0) return;
  sigmoid_kernel<<<blocks_of(a.tile.logits.rows), kThreads, 0, native(stream)>>>(a);
}

void launch(Cuda, Stream& stream, const SigmoidLossFinish& a) { sigmoid_finish_kernel<<<3, kThreads, 0, native(stream)>>>(a); }

}  // namespace twinlens
