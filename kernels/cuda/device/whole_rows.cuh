#pragma once
// Rows that are whole 16-byte words and stay in registers: kGroup warps share a row, a lane holds kColumns of its columns, in packs of 16
// bytes; the warps of a row take neighbouring packs.

#include <type_traits>

#include "kernels/cuda/device/packed.cuh"
#include "kernels/cuda/device/rows.cuh"

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

// What the lanes of a warp agree on joined over the warps of a row. Calls in turn get different `parts`: a barrier then lies between a
// part's last reading and its next writing.
template <int kGroup, class Join>
__device__ inline float over_warps(float x, float* parts, Join join) {
  if constexpr (kGroup > 1) {
    const int warp = static_cast<int>(threadIdx.x) / kWarp, row = static_cast<int>(threadIdx.y) * kGroup;
    if (threadIdx.x % kWarp == 0) parts[row + warp] = x;
    __syncthreads();
    x = parts[row];
#pragma unroll
    for (int w = 1; w < kGroup; ++w) x = join(x, parts[row + w]);
  }
  return x;
}
template <int kGroup>
__device__ inline float row_total(float x, float* parts) {
  return over_warps<kGroup>(group_sum<kWarp>(x), parts, [](float a, float b) { return a + b; });
}
// NaN is passed over.
template <int kGroup>
__device__ inline float row_max(float x, float* parts) {
  return over_warps<kGroup>(group_max<kWarp>(x), parts, [](float a, float b) { return fmaxf(a, b); });
}

// Calls f(integral constants kGroup, kColumns), for up to kWidestWholeRow columns: the shape in which the fewest lanes are idle.
inline constexpr std::int64_t kWidestWholeRow = 4 * kWarp * 24;
template <class F>
void visit_row_shape(std::int64_t columns, F&& f) {
  const auto shape = [&]<int kGroup, int kColumns>() { f(std::integral_constant<int, kGroup>{}, std::integral_constant<int, kColumns>{}); };
  if (columns <= 512) return shape.template operator()<1, 16>();
  if (columns <= 768) return shape.template operator()<1, 24>();
  if (columns <= 1024) return shape.template operator()<2, 16>();
  if (columns <= 1536) return shape.template operator()<2, 24>();
  if (columns <= 2048) return shape.template operator()<4, 16>();
  return shape.template operator()<4, 24>();
}

}  // namespace twinlens::cuda
