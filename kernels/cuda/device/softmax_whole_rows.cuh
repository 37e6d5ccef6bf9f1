#pragma once
// Softmax of rows of whole words: a row is read once and each exponential taken once. The sum leaves out one column that holds the maximum,
// see softmax_row.cuh.

#include "kernels/cuda/device/whole_rows.cuh"

#include "twinlens/kernels/softmax.h"

namespace twinlens::cuda {

inline constexpr int kSoftmaxWarps = 4;  // of a block, which has kSoftmaxWarps / kGroup rows

template <int kGroup, int kColumns, class T>
__global__ void __launch_bounds__(kWarp* kSoftmaxWarps) softmax_whole_rows_kernel(SoftmaxForward a) {
  using Place = RowPlace<kGroup, kColumns, T>;
  constexpr int W = Place::W, kPacks = Place::kPacks;
  __shared__ float parts[3][kSoftmaxWarps];
  const Place place(a.x.cols);
  const std::int64_t r = std::int64_t{blockIdx.x} * (kSoftmaxWarps / kGroup) + threadIdx.y;
  const bool real = r < valid_rows(a.x);  // all threads stay: warps of a row wait for the block
  Packed<W, T> packed[kPacks];
  place.load(row_of<T>(a.x, r), real, packed);
  float v[kPacks][W], largest = -__builtin_inff();
#pragma unroll
  for (int p = 0; p < kPacks; ++p) {
    unpack(packed[p], v[p]);
    if (!place.has(p)) continue;
#pragma unroll
    for (int k = 0; k < W; ++k) largest = fmaxf(largest, v[p][k]);
  }
  const float max = row_max<kGroup>(largest, parts[0]);
  float maxima = 0.0F, sum = 0.0F;
#pragma unroll
  for (int p = 0; p < kPacks; ++p) {
    if (!place.has(p)) continue;
    float others[W];
#pragma unroll
    for (int k = 0; k < W; ++k) {
      const bool at_max = v[p][k] == max;
      maxima += at_max ? 1.0F : 0.0F;
      v[p][k] -= max;
      const float power = expf(v[p][k]);
      others[k] = at_max ? 0.0F : power;
      if (!a.log) v[p][k] = power;
    }
    sum += pack_sum(others);
  }
  // NaN of an infinite maximum.
  const float others = row_total<kGroup>(maxima, parts[1]) - 1.0F + row_total<kGroup>(sum, parts[2]) + (max - max);
  if (!real) return;
  const float inverse = 1.0F / (1.0F + others), log_sum = log1pf(others);
  T* y = row_of<T>(a.y, r);
#pragma unroll
  for (int p = 0; p < kPacks; ++p) {
    if (!place.has(p)) continue;
#pragma unroll
    for (int k = 0; k < W; ++k) v[p][k] = a.log ? v[p][k] - log_sum : v[p][k] * inverse;
    store_pack(v[p], y + place.column(p), W, true);
  }
}

}  // namespace twinlens::cuda
