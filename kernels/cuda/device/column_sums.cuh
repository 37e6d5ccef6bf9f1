#pragma once
// Sums over rows without atomics: every block writes the sums of its own rows as one part, then the parts are added in a fixed order.

#include "kernels/cuda/device/element.cuh"
#include "kernels/cuda/device/launch.cuh"
#include "kernels/cuda/device/rows.cuh"

namespace twinlens::cuda {

// The parts of one result: part p of column c at from[p * columns + c].
struct ColumnParts {
  const float* from = nullptr;
  float* out = nullptr;  // null: nobody wants it
  bool accumulate = false;
};

// out[c] = sum over parts, of which there are as many as blocks of `rows_of_block` rows: kSumSlices threads a column take every
// kSumSlices-th part, then the slices are added in order. blockIdx.y chooses between two results.
inline constexpr int kSumSlices = 16;
static __global__ void sum_parts_kernel(ColumnParts first, ColumnParts second, ConstRows rows, std::int64_t rows_of_block,
                                        std::int64_t columns) {
  __shared__ float slices[kSumSlices][kWarp];
  const ColumnParts parts = blockIdx.y == 0 ? first : second;
  if (parts.out == nullptr) return;
  const std::int64_t count = (valid_rows(rows) + rows_of_block - 1) / rows_of_block;
  const std::int64_t column = std::int64_t{blockIdx.x} * kWarp + threadIdx.x;
  float sum = 0.0F;
  if (column < columns) {
#pragma unroll 4
    for (std::int64_t p = threadIdx.y; p < count; p += kSumSlices) sum += parts.from[p * columns + column];
  }
  slices[threadIdx.y][threadIdx.x] = sum;
  __syncthreads();
  if (threadIdx.y != 0 || column >= columns) return;
  for (int s = 1; s < kSumSlices; ++s) sum += slices[s][threadIdx.x];
  parts.out[column] = parts.accumulate ? parts.out[column] + sum : sum;
}

// Also for no rows: the sums over nothing are written as 0 (or added).
inline void launch_sum_parts(Stream& stream, const ColumnParts& first, const ColumnParts& second, const ConstRows& rows,
                             std::int64_t rows_of_block, std::int64_t columns) {
  if (columns == 0 || (first.out == nullptr && second.out == nullptr)) return;
  const dim3 grid(static_cast<unsigned>(ceil_div(columns, kWarp)), second.out == nullptr ? 1 : 2);
  sum_parts_kernel<<<grid, dim3(kWarp, kSumSlices), 0, native(stream)>>>(first, second, rows, rows_of_block, columns);
}

}  // namespace twinlens::cuda
