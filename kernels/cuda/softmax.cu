#include "kernels/cuda/device/element.cuh"
#include "kernels/cuda/device/launch.cuh"
#include "kernels/cuda/device/softmax_row.cuh"
#include "kernels/cuda/device/softmax_whole_rows.cuh"

#include "twinlens/kernels/softmax.h"

namespace twinlens {
namespace {

using namespace cuda;

template <int kThreads, class T>
__global__ void __launch_bounds__(256) forward_kernel(SoftmaxForward a, bool aligned) {
  constexpr int W = kPack<T>;
  const std::int64_t r = group_row();
  if (r >= valid_rows(a.x)) return;
  const T* x = row_of<T>(a.x, r);
  T* y = row_of<T>(a.y, r);
  const SoftmaxRow row = softmax_row<kThreads>(x, a.x.cols, aligned);
  const float inverse = 1.0F / (1.0F + row.others), log_sum = log1pf(row.others);
  for_row_packs<kThreads, W>(a.x.cols, [&](std::int64_t i, std::int64_t n) {
    float v[W];
    load_pack(x + i, n, aligned, v);
#pragma unroll
    for (int k = 0; k < W; ++k) v[k] = a.log ? (v[k] - row.max) - log_sum : expf(v[k] - row.max) * inverse;
    store_pack(v, y + i, n, aligned);
  });
}

template <int kThreads, class T, class D>
__global__ void __launch_bounds__(256) backward_kernel(SoftmaxBackward a, bool aligned) {
  constexpr int W = kPack<T>;
  const std::int64_t r = group_row();
  if (r >= valid_rows(a.y)) return;
  const T* y = row_of<T>(a.y, r);
  const D* dy = row_of<D>(a.dy, r);
  T* dx = row_of<T>(a.dx, r);
  float v[W], d[W], sums = 0.0F;
  for_row_packs<kThreads, W>(a.y.cols, [&](std::int64_t i, std::int64_t n) {
    load_pack(dy + i, n, aligned, d);
    load_pack(y + i, n, aligned, v);
#pragma unroll
    for (int k = 0; k < W; ++k) sums += a.log ? d[k] : d[k] * v[k];  // 0 beyond the row
  });
  const float sum = group_sum<kThreads>(sums);
  for_row_packs<kThreads, W>(a.y.cols, [&](std::int64_t i, std::int64_t n) {
    load_pack(dy + i, n, aligned, d);
    load_pack(y + i, n, aligned, v);
#pragma unroll
    for (int k = 0; k < W; ++k) d[k] = a.log ? d[k] - expf(v[k]) * sum : v[k] * (d[k] - sum);
    store_pack(d, dx + i, n, aligned);
  });
}

}  // namespace

void launch(Cuda, Stream& stream, const SoftmaxForward& a) {
  const RowLaunch geometry = row_launch(a.x.rows, a.x.cols);
  if (geometry.blocks == 0) return;
  const int pack = pack_of(a.x.dtype);
  const bool aligned = rows_are_aligned(a.x, pack) && rows_are_aligned(a.y, pack);
  if (aligned && a.x.cols % pack == 0 && a.x.cols <= kWidestWholeRow) {
    return visit_row_shape(
        a.x.cols, [&]<int kGroup, int kColumns>(std::integral_constant<int, kGroup>, std::integral_constant<int, kColumns>) {
          constexpr int kRows = kSoftmaxWarps / kGroup;
          const auto blocks = static_cast<unsigned>(ceil_div(a.x.rows, kRows));
          visit_cuda_float(a.x.dtype, [&]<class T>(TypeTag<T>) {
            softmax_whole_rows_kernel<kGroup, kColumns, T><<<blocks, dim3(kGroup * kWarp, kRows), 0, native(stream)>>>(a);
          });
        });
  }
  visit_threads(geometry, [&]<int kThreads>(Threads<kThreads>) {
    visit_cuda_float(a.x.dtype, [&]<class T>(TypeTag<T>) {
      forward_kernel<kThreads, T><<<geometry.blocks, threads_of(geometry), 0, native(stream)>>>(a, aligned);
    });
  });
}

void launch(Cuda, Stream& stream, const SoftmaxBackward& a) {
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
