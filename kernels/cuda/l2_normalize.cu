#include "kernels/cuda/device/element.cuh"
#include "kernels/cuda/device/launch.cuh"
#include "kernels/cuda/device/rows.cuh"

#include "twinlens/kernels/l2_normalize.h"

namespace twinlens {
namespace {

using namespace cuda;

// Rows are read twice, the second time from cache: embeddings are short.
template <int kThreads, class T>
__global__ void __launch_bounds__(256) forward_kernel(L2NormalizeForward a, bool aligned) {
  constexpr int W = kPack<T>;
  const std::int64_t r = group_row();
  if (r >= valid_rows(a.x)) return;
  const T* x = row_of<T>(a.x, r);
  T* y = row_of<T>(a.y, r);
  float v[W], squares = 0.0F;
  for_row_packs<kThreads, W>(a.x.cols, [&](std::int64_t i, std::int64_t n) {
    load_pack(x + i, n, aligned, v);
#pragma unroll
    for (int k = 0; k < W; ++k) squares = fmaf(v[k], v[k], squares);  // 0 beyond the row
  });
  const float norm = sqrtf(group_sum<kThreads>(squares));
  const float divisor = norm < a.eps ? a.eps : norm;
  for_row_packs<kThreads, W>(a.x.cols, [&](std::int64_t i, std::int64_t n) {
    load_pack(x + i, n, aligned, v);
#pragma unroll
    for (int k = 0; k < W; ++k) v[k] /= divisor;
    store_pack(v, y + i, n, aligned);
  });
  if (threadIdx.x == 0) a.norm[r] = norm;
}

template <int kThreads, class T, class D>
__global__ void __launch_bounds__(256) backward_kernel(L2NormalizeBackward a, bool aligned) {
  constexpr int W = kPack<T>;
  const std::int64_t r = group_row();
  if (r >= valid_rows(a.y)) return;
  const T* y = row_of<T>(a.y, r);
  const D* dy = row_of<D>(a.dy, r);
  T* dx = row_of<T>(a.dx, r);
  const bool is_clamped = a.norm[r] < a.eps;
  const float inverse = 1.0F / (is_clamped ? a.eps : a.norm[r]);
  float v[W], d[W], products = 0.0F;
  if (!is_clamped) {
    for_row_packs<kThreads, W>(a.y.cols, [&](std::int64_t i, std::int64_t n) {
      load_pack(y + i, n, aligned, v);
      load_pack(dy + i, n, aligned, d);
#pragma unroll
      for (int k = 0; k < W; ++k) products = fmaf(d[k], v[k], products);
    });
  }
  const float dot = group_sum<kThreads>(products);
  for_row_packs<kThreads, W>(a.y.cols, [&](std::int64_t i, std::int64_t n) {
    load_pack(y + i, n, aligned, v);
    load_pack(dy + i, n, aligned, d);
#pragma unroll
    for (int k = 0; k < W; ++k) d[k] = (d[k] - v[k] * dot) * inverse;
    store_pack(d, dx + i, n, aligned);
  });
}

}  // namespace

void launch(Cuda, Stream& stream, const L2NormalizeForward& a) {
  const RowLaunch geometry = row_result_launch(a.x.rows, a.x.cols);
  if (geometry.blocks == 0) return;
  const int pack = pack_of(a.x.dtype);
  const bool aligned = rows_are_aligned(a.x, pack) && rows_are_aligned(a.y, pack);
  visit_threads(geometry, [&]<int kThreads>(Threads<kThreads>) {
    visit_cuda_float(a.x.dtype, [&]<class T>(TypeTag<T>) {
      forward_kernel<kThreads, T><<<geometry.blocks, threads_of(geometry), 0, native(stream)>>>(a, aligned);
    });
  });
}

void launch(Cuda, Stream& stream, const L2NormalizeBackward& a) {
  const RowLaunch geometry = row_launch(a.y.rows, a.y.cols);
  if (geometry.blocks == 0) return;
  const int pack = pack_of(a.y.dtype);
  const bool aligned = rows_are_aligned(a.y, pack) && rows_are_aligned(a.dy, pack) && rows_are_aligned(a.dx, pack);
  visit_threads(geometry, [&]<int kThreads>(Threads<kThreads>) {
    visit_cuda_float(a.y.dtype, [&]<class T>(TypeTag<T>) {
      visit_cuda_float(a.dy.dtype, [&]<class D>(TypeTag<D>) {
        backward_kernel<kThreads, T, D><<<geometry.blocks, threads_of(geometry), 0, native(stream)>>>(a, aligned);
      });
    });
  });
}

}  // namespace twinlens
