#pragma once
// Layer normalisation of rows in whole words: memory is what these kernels wait for, so the next rows are on their way while the ones at
// hand are computed, and every number crosses the memory once. kGroup warps share a row, a lane holds kColumns of its columns, in packs of
// 16 bytes: the warps of a row take neighbouring packs.

#include "kernels/cuda/device/packed.cuh"
#include "kernels/cuda/device/rows.cuh"

#include "twinlens/kernels/layer_norm.h"

namespace twinlens::cuda {

template <int W>
__device__ inline float pack_sum(const float (&v)[W]) {
  if constexpr (W == 8) return ((v[0] + v[1]) + (v[2] + v[3])) + ((v[4] + v[5]) + (v[6] + v[7]));
  return (v[0] + v[1]) + (v[2] + v[3]);
}

// Where the threads (kGroup * kWarp, rows) of a block stand. Blocks go through rows in step, because warps of a row wait for each other.
template <int kGroup, int kColumns, class X>
struct RowPlace {
  static constexpr int W = kPack<X>, kPacks = kColumns / W, kSpan = kGroup * kWarp * W;
  int first;  // column of the lane's first pack; the others are kSpan apart
  int columns;
  __device__ explicit RowPlace(std::int64_t c) : first(static_cast<int>(threadIdx.x) * W), columns(static_cast<int>(c)) {}
  __device__ int column(int pack) const { return first + pack * kSpan; }
  __device__ bool has(int pack) const { return column(pack) < columns; }

  template <class T>
  __device__ void load(const T* row, bool real, Packed<W, T> (&out)[kPacks]) const {
#pragma unroll
    for (int p = 0; p < kPacks; ++p) {
      out[p] = {};
      if (real && has(p)) load_packed(row + column(p), W, true, out[p]);
    }
  }
  // A parameter, or what it is when it is absent.
  __device__ void load_parameter(const float* x, float absent, float (&out)[kPacks][W]) const {
#pragma unroll
    for (int p = 0; p < kPacks; ++p) {
      if (x != nullptr && has(p)) {
        load_pack(x + column(p), W, true, out[p]);
      } else {
#pragma unroll
        for (int k = 0; k < W; ++k) out[p][k] = absent;
      }
    }
  }
};

// The sum over the warps of a row, in every lane. Calls in turn get different `parts`: a barrier then lies between a part's last reading
// and its next writing.
template <int kGroup>
__device__ inline float row_total(float x, float* parts) {
  x = group_sum<kWarp>(x);
  if constexpr (kGroup > 1) {
    const int warp = static_cast<int>(threadIdx.x) / kWarp, row = static_cast<int>(threadIdx.y) * kGroup;
    if (threadIdx.x % kWarp == 0) parts[row + warp] = x;
    __syncthreads();
    x = parts[row];
#pragma unroll
    for (int w = 1; w < kGroup; ++w) x += parts[row + w];
  }
  return x;
}

// Blocks of kForwardWarps warps, as many as the card holds at a time; gamma and beta stay in registers.
inline constexpr int kForwardWarps = 4;
template <int kColumns>
inline constexpr int kForwardBlocks = kColumns == 16 ? 5 : 4;  // on a multiprocessor

template <int kGroup, int kColumns, class X, class Y>
__global__ void __launch_bounds__(kWarp* kForwardWarps, kForwardBlocks<kColumns>) row_forward_kernel(LayerNormForward a) {
  using Place = RowPlace<kGroup, kColumns, X>;
  constexpr int W = Place::W, kPacks = Place::kPacks, kRows = kForwardWarps / kGroup;
  __shared__ float parts[2][kForwardWarps];
  const Place place(a.x.cols);
  const std::int64_t rows = valid_rows(a.x), step = std::int64_t{gridDim.x} * kRows;
  const float count = static_cast<float>(place.columns);
  float gamma[kPacks][W], beta[kPacks][W];
  place.load_parameter(a.gamma, 1.0F, gamma);
  place.load_parameter(a.beta, 0.0F, beta);
  std::int64_t r = std::int64_t{blockIdx.x} * kRows + threadIdx.y;
  Packed<W, X> next[kPacks];
  place.load(row_of<X>(a.x, r), r < rows, next);
  for (; r - threadIdx.y < rows; r += step) {
    float v[kPacks][W], sum = 0.0F, squares = 0.0F;
#pragma unroll
    for (int p = 0; p < kPacks; ++p) unpack(next[p], v[p]);
    place.load(row_of<X>(a.x, r + step), r + step < rows, next);
#pragma unroll
    for (int p = 0; p < kPacks; ++p) sum += pack_sum(v[p]);  // 0 beyond the row
    const float mean = row_total<kGroup>(sum, parts[0]) / count;
#pragma unroll
    for (int p = 0; p < kPacks; ++p) {
      float square[W];
#pragma unroll
      for (int k = 0; k < W; ++k) {
        v[p][k] -= mean;
        square[k] = v[p][k] * v[p][k];
      }
      squares += place.has(p) ? pack_sum(square) : 0.0F;
    }
    const float rstd = 1.0F / sqrtf(row_total<kGroup>(squares, parts[1]) / count + a.eps);
    if (r >= rows) continue;
    Y* y = row_of<Y>(a.y, r);
#pragma unroll
    for (int p = 0; p < kPacks; ++p) {
#pragma unroll
      for (int k = 0; k < W; ++k) v[p][k] = v[p][k] * rstd * gamma[p][k] + beta[p][k];
      if (place.has(p)) store_pack(v[p], y + place.column(p), W, true);
    }
    if (threadIdx.x == 0) {
      a.mean[r] = mean;
      a.rstd[r] = rstd;
    }
  }
}

// The rows of one block, and where their share of dgamma and dbeta goes.
struct RowBlock {
  std::int64_t begin, end;
  float *gamma_part, *beta_part;
};
__device__ inline RowBlock row_block(const LayerNormBackward& a, std::int64_t rows_of_block) {
  const std::int64_t rows = valid_rows(a.x), begin = std::int64_t{blockIdx.x} * rows_of_block;
  float* part = a.scratch + std::int64_t{blockIdx.x} * a.x.cols;
  return {begin, begin + rows_of_block < rows ? begin + rows_of_block : rows, part, part + std::int64_t{gridDim.x} * a.x.cols};
}

inline constexpr int kBackwardWarps = 8;

// x, dy and the statistics of a row on their way.
template <class Place, class X, class D>
struct RowInFlight {
  Packed<Place::W, X> x[Place::kPacks];
  Packed<Place::W, D> dy[Place::kPacks];
  float mean, rstd;
  __device__ void load(const LayerNormBackward& a, const Place& place, std::int64_t r, bool real) {
    place.load(row_of<X>(a.x, r), real, x);
    place.load(row_of<D>(a.dy, r), real, dy);
    mean = real ? a.mean[r] : 0.0F;
    rstd = real ? a.rstd[r] : 0.0F;
  }
};

// Column sums of all warps to memory that the block shares, then those of the block's rows added in order.
template <int kGroup, class Place>
__device__ void write_column_sums(const float (&sum)[Place::kPacks][Place::W], float* shared, int columns, float* part) {
  constexpr int W = Place::W, kOfLane = Place::kPacks * W, kStride = kWarp + 1;  // the stride keeps both sides off common banks
  const int warp = static_cast<int>(threadIdx.y) * kGroup + static_cast<int>(threadIdx.x) / kWarp;
  __syncthreads();  // what was there may still be read
#pragma unroll
  for (int p = 0; p < Place::kPacks; ++p) {
#pragma unroll
    for (int k = 0; k < W; ++k) shared[(warp * kOfLane + p * W + k) * kStride + static_cast<int>(threadIdx.x) % kWarp] = sum[p][k];
  }
  __syncthreads();
  const int thread = static_cast<int>(threadIdx.y) * kGroup * kWarp + static_cast<int>(threadIdx.x);
  for (int column = thread; column < columns; column += kWarp * kBackwardWarps) {
    const int p = column / Place::kSpan, lane = column % Place::kSpan / W, k = column % W;
    const float* at = shared + (lane / kWarp * kOfLane + p * W + k) * kStride + lane % kWarp;
    float total = at[0];
    for (int y = 1; y < kBackwardWarps / kGroup; ++y) total += at[y * kGroup * kOfLane * kStride];
    part[column] = total;
  }
}

// A block of kBackwardWarps warps takes rows_of_block rows, kBackwardWarps / kGroup at a time; every lane sums its own columns of dgamma
// and dbeta. Gamma, which registers have no room for, lies in shared memory.
template <int kGroup, int kColumns, class X, class D>
__global__ void __launch_bounds__(kWarp* kBackwardWarps, 2) row_backward_kernel(LayerNormBackward a, std::int64_t rows_of_block) {
  using Place = RowPlace<kGroup, kColumns, X>;
  constexpr int W = Place::W, kPacks = Place::kPacks, kRows = kBackwardWarps / kGroup;
  constexpr bool kAhead = sizeof(X) + sizeof(D) <= 4;  // else registers have no room for rows on their way
  __shared__ float sums[kBackwardWarps * kColumns * (kWarp + 1)];
  __shared__ float4 gammas[kGroup * kColumns * kWarp / 4];
  __shared__ float parts[2][2][kBackwardWarps];
  const RowBlock rows = row_block(a, rows_of_block);
  if (rows.begin >= valid_rows(a.x)) return;  // the whole block
  const Place place(a.x.cols);
  const int thread = static_cast<int>(threadIdx.y) * kGroup * kWarp + static_cast<int>(threadIdx.x);
  // Word q of a lane's pack p at gammas[(p * W / 4 + q) * lanes + lane]: neighbouring lanes, neighbouring words.
  constexpr int kLanes = kGroup * kWarp;
  for (int i = thread; i < place.columns / 4; i += kWarp * kBackwardWarps) {
    const int column = i * 4, p = column / Place::kSpan, lane = column % Place::kSpan / W, q = column % W / 4;
    gammas[(p * (W / 4) + q) * kLanes + lane] =
        a.gamma != nullptr ? reinterpret_cast<const float4*>(a.gamma)[i] : make_float4(1.0F, 1.0F, 1.0F, 1.0F);
  }
  __syncthreads();
  const auto gamma_of = [&](int p, float(&gamma)[W]) {
#pragma unroll
    for (int q = 0; q < W / 4; ++q) {
      const float4 word = gammas[(p * (W / 4) + q) * kLanes + static_cast<int>(threadIdx.x)];
      gamma[4 * q] = word.x, gamma[4 * q + 1] = word.y, gamma[4 * q + 2] = word.z, gamma[4 * q + 3] = word.w;
    }
  };
  const float per_column = 1.0F / static_cast<float>(place.columns);
  float gamma_sum[kPacks][W] = {}, beta_sum[kPacks][W] = {};
  RowInFlight<Place, X, D> row, next;
  std::int64_t r = rows.begin + threadIdx.y;
  if (kAhead) next.load(a, place, r, r < rows.end);
  for (int turn = 0; r - threadIdx.y < rows.end; r += kRows, turn ^= 1) {
    if (kAhead) {
      row = next;
      next.load(a, place, r + kRows, r + kRows < rows.end);
    } else {
      row.load(a, place, r, r < rows.end);
    }
    float sum_g = 0.0F, sum_gx = 0.0F;
#pragma unroll
    for (int p = 0; p < kPacks; ++p) {
      if (!place.has(p)) continue;
      float xs[W], ds[W], gamma[W];
      unpack(row.x[p], xs);
      unpack(row.dy[p], ds);
      gamma_of(p, gamma);
#pragma unroll
      for (int k = 0; k < W; ++k) {
        const float xhat = (xs[k] - row.mean) * row.rstd, g = ds[k] * gamma[k];
        gamma_sum[p][k] += ds[k] * xhat;
        beta_sum[p][k] += ds[k];
        xs[k] = g * xhat;
        ds[k] = g;
      }
      sum_g += pack_sum(ds);
      sum_gx += pack_sum(xs);
    }
    if (a.dx.data == nullptr) continue;  // the whole block
    const float mean_g = row_total<kGroup>(sum_g, parts[turn][0]) * per_column;
    const float mean_gx = row_total<kGroup>(sum_gx, parts[turn][1]) * per_column;
    if (r >= rows.end) continue;
    X* dx = row_of<X>(a.dx, r);
#pragma unroll
    for (int p = 0; p < kPacks; ++p) {
      if (!place.has(p)) continue;
      float xs[W], ds[W], gamma[W];
      forget(row.x[p]);  // computed again instead of being kept
      forget(row.dy[p]);
      unpack(row.x[p], xs);
      unpack(row.dy[p], ds);
      gamma_of(p, gamma);
#pragma unroll
      for (int k = 0; k < W; ++k) {
        const float xhat = (xs[k] - row.mean) * row.rstd;
        ds[k] = (ds[k] * gamma[k] - mean_g - xhat * mean_gx) * row.rstd;
      }
      store_pack(ds, dx + place.column(p), W, true);
    }
  }
  if (a.dgamma != nullptr) write_column_sums<kGroup, Place>(gamma_sum, sums, place.columns, rows.gamma_part);
  if (a.dbeta != nullptr) write_column_sums<kGroup, Place>(beta_sum, sums, place.columns, rows.beta_part);
}

// Calls f(integral constants kGroup, kColumns): the shape in which the fewest lanes are idle.
inline constexpr std::int64_t kWidestRow = 2048;
template <class F>
void visit_row_shape(std::int64_t columns, F&& f) {
  const auto shape = [&]<int kGroup, int kColumns>() { f(std::integral_constant<int, kGroup>{}, std::integral_constant<int, kColumns>{}); };
  if (columns <= 512) return shape.template operator()<1, 16>();
  if (columns <= 768) return shape.template operator()<1, 24>();
  if (columns <= 1024) return shape.template operator()<2, 16>();
  if (columns <= 1536) return shape.template operator()<2, 24>();
  return shape.template operator()<4, 16>();
}

// Types that these kernels are compiled for: one type for both sides, or f32 and something shorter.
template <class X, class Other>
inline constexpr bool kRowTypes = __is_same(X, Other) || __is_same(X, float);

}  // namespace twinlens::cuda
