#include "kernels/cuda/device/element.cuh"
#include "kernels/cuda/device/launch.cuh"
#include "kernels/cuda/device/rows.cuh"

#include "twinlens/kernels/reduce_rows.h"

namespace twinlens {
namespace {

using namespace cuda;

// A thread sums its packs in runs of kRun, then the runs: the error grows with the number of runs, not of columns.
constexpr int kRun = 64;

template <int kThreads, class X>
__global__ void __launch_bounds__(256) reduce_kernel(ReduceRows a, bool aligned) {
  constexpr int W = kPack<X>;
  const std::int64_t r = group_row();
  if (r >= valid_rows(a.x)) return;
  const X* x = row_of<X>(a.x, r);
  float total = 0.0F, run = 0.0F;
  int length = 0;
  for_row_packs<kThreads, W>(a.x.cols, [&](std::int64_t i, std::int64_t n) {
    float v[W];
    load_pack(x + i, n, aligned, v);
#pragma unroll
    for (int k = 0; k < W; ++k) run += v[k];  // 0 beyond the row
    if (++length == kRun) {
      total += run;
      run = 0.0F;
      length = 0;
    }
  });
  const float sum = a.factor * group_sum<kThreads>(total + run);
  if (threadIdx.x != 0) return;
  switch (a.y.dtype) {
    case DType::bf16: a.y.as<bf16>()[r] = from_float<bf16>(sum); break;
    case DType::f16: a.y.as<f16>()[r] = from_float<f16>(sum); break;
    default: a.y.as<float>()[r] = sum; break;
  }
}

}  // namespace

void launch(Cuda, Stream& stream, const ReduceRows& a) {
  const RowLaunch geometry = row_result_launch(a.x.rows, a.x.cols);
  if (geometry.blocks == 0) return;
  const bool aligned = rows_are_aligned(a.x, pack_of(a.x.dtype));
  visit_threads(geometry, [&]<int kThreads>(Threads<kThreads>) {
    visit_cuda_float(a.x.dtype, [&]<class X>(TypeTag<X>) {
      reduce_kernel<kThreads, X><<<geometry.blocks, threads_of(geometry), 0, native(stream)>>>(a, aligned);
    });
  });
}

}  // namespace twinlens
