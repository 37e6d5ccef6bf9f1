#include "kernels/cuda/device/element.cuh"
#include "kernels/cuda/device/launch.cuh"
#include "kernels/cuda/device/softmax_row.cuh"

#include "twinlens/kernels/cross_entropy.h"

namespace twinlens {
namespace {

using namespace cuda;

__device__ float not_a_number() { return __int_as_float(0x7FC00000); }

template <int kThreads, class T>
__global__ void __launch_bounds__(256) forward_kernel(CrossEntropyForward a, bool aligned) {
  const std::int64_t r = group_row();
  if (r >= valid_rows(a.logits)) return;
  const std::int64_t target = a.targets[r];
  SoftmaxRow row{0.0F, 0.0F};
  float loss = 0.0F;
  if (target != a.ignore) {
    const T* x = row_of<T>(a.logits, r);
    row = softmax_row<kThreads>(x, a.logits.cols, aligned);
    const bool inside = target >= 0 && target < a.logits.cols;  // the host cannot look without waiting for the device
    loss = inside ? (row.max - to_float(x[target])) + log1pf(row.others) : not_a_number();
  }
  if (threadIdx.x != 0) return;
  a.max[r] = row.max;
  a.others[r] = row.others;
  a.row_loss[r] = loss;
}

template <int kThreads, class T>
__global__ void __launch_bounds__(256) backward_kernel(CrossEntropyBackward a, bool aligned) {
  constexpr int W = kPack<T>;
  const std::int64_t r = group_row();
  if (r >= valid_rows(a.logits)) return;
  const std::int64_t c = a.logits.cols, target = a.targets[r];
  const T* x = row_of<T>(a.logits, r);
  T* dx = row_of<T>(a.dlogits, r);
  const bool counts = target != a.ignore;
  const float max = a.max[r], others = a.others[r];
  const float scale = *a.weight * *a.dy, factor = scale / (1.0F + others);
  for_row_packs<kThreads, W>(c, [&](std::int64_t i, std::int64_t n) {
    float v[W];
    load_pack(x + i, n, aligned, v);
#pragma unroll
    for (int k = 0; k < W; ++k) {
      const float e = expf(v[k] - max);
      float d = counts ? e * factor : 0.0F;
      if (counts && i + k == target) d = scale * (v[k] == max ? -others / (1.0F + others) : e / (1.0F + others) - 1.0F);
      v[k] = d;
    }
    store_pack(v, dx + i, n, aligned);
  });
}

// The mean over rows that count, in double and in a fixed order, by one block.
constexpr int kMeanThreads = 1024;
__global__ void __launch_bounds__(kMeanThreads)
    mean_kernel(const float* row_loss, ConstRows logits, const std::int64_t* targets, std::int64_t ignore, float* loss, float* weight) {
  const std::int64_t rows = valid_rows(logits);
  double total = 0.0, counted = 0.0;
  for (std::int64_t r = threadIdx.x; r < rows; r += kMeanThreads) {
    total += static_cast<double>(row_loss[r]);
    counted += targets == nullptr || targets[r] != ignore ? 1.0 : 0.0;
  }
  total = group_sum<kMeanThreads>(total);
  counted = group_sum<kMeanThreads>(counted);
  if (threadIdx.x != 0) return;
  *weight = counted > 0.0 ? static_cast<float>(1.0 / counted) : 0.0F;
  *loss = counted > 0.0 ? static_cast<float>(total / counted) : 0.0F;
}

template <int kThreads, class T>
__global__ void __launch_bounds__(256) soft_forward_kernel(SoftCrossEntropyForward a, bool aligned) {
  constexpr int W = kPack<T>;
  const std::int64_t r = group_row();
  if (r >= valid_rows(a.logits)) return;
  const T* x = row_of<T>(a.logits, r);
  const float* q = row_of<float>(a.targets, r);
  const SoftmaxRow row = softmax_row<kThreads>(x, a.logits.cols, aligned);
  const float log_sum = log1pf(row.others);
  float loss = 0.0F;
  for_row_packs<kThreads, W>(a.logits.cols, [&](std::int64_t i, std::int64_t n) {
    float v[W], target[W];
    load_pack(x + i, n, aligned, v);
    load_pack(q + i, n, aligned, target);
#pragma unroll
    for (int k = 0; k < W; ++k) loss += target[k] == 0.0F ? 0.0F : target[k] * ((row.max - v[k]) + log_sum);  // 0 beyond the row
  });
  loss = group_sum<kThreads>(loss);
  if (threadIdx.x != 0) return;
  a.max[r] = row.max;
  a.others[r] = row.others;
  a.row_loss[r] = loss;
}

template <int kThreads, class T>
__global__ void __launch_bounds__(256) soft_backward_kernel(SoftCrossEntropyBackward a, bool aligned) {
  constexpr int W = kPack<T>;
  const std::int64_t r = group_row();
  if (r >= valid_rows(a.logits)) return;
  const std::int64_t c = a.logits.cols;
  const T* x = row_of<T>(a.logits, r);
  const float* q = row_of<float>(a.targets, r);
  const float max = a.max[r], others = a.others[r], inverse = 1.0F / (1.0F + others), scale = *a.weight * *a.dy;
  float v[W], target[W];
  if (a.dlogits.data != nullptr) {
    T* dx = row_of<T>(a.dlogits, r);
    float sums = 0.0F;
    for_row_packs<kThreads, W>(c, [&](std::int64_t i, std::int64_t n) {
      load_pack(q + i, n, aligned, target);
#pragma unroll
      for (int k = 0; k < W; ++k) sums += target[k];
    });
    const float total = group_sum<kThreads>(sums);
    for_row_packs<kThreads, W>(c, [&](std::int64_t i, std::int64_t n) {
      load_pack(x + i, n, aligned, v);
      load_pack(q + i, n, aligned, target);
#pragma unroll
      for (int k = 0; k < W; ++k) {
        const float apart = expf(v[k] - max) * inverse * total - target[k];
        const float together = ((total - target[k]) - target[k] * others) * inverse;  // the same where x = max, without cancellation
        v[k] = scale * (v[k] == max ? together : apart);
      }
      store_pack(v, dx + i, n, aligned);
    });
  }
  if (a.dtargets.data != nullptr) {
    float* dq = row_of<float>(a.dtargets, r);
    const float log_sum = log1pf(others);
    for_row_packs<kThreads, W>(c, [&](std::int64_t i, std::int64_t n) {
      load_pack(x + i, n, aligned, v);
#pragma unroll
      for (int k = 0; k < W; ++k) v[k] = scale * ((max - v[k]) + log_sum);
      store_pack(v, dq + i, n, aligned);
    });
  }
}

}  // namespace

void launch(Cuda, Stream& stream, const CrossEntropyForward& a) {
  const RowLaunch geometry = row_result_launch(a.logits.rows, a.logits.cols);
  const bool aligned = rows_are_aligned(a.logits, pack_of(a.logits.dtype));
  if (geometry.blocks != 0) {
    visit_threads(geometry, [&]<int kThreads>(Threads<kThreads>) {
      visit_cuda_float(a.logits.dtype, [&]<class T>(TypeTag<T>) {
        forward_kernel<kThreads, T><<<geometry.blocks, threads_of(geometry), 0, native(stream)>>>(a, aligned);
      });
    });
  }
  // Also for no rows: the mean of nothing is written as 0.
  mean_kernel<<<1, kMeanThreads, 0, native(stream)>>>(a.row_loss, a.logits, a.targets, a.ignore, a.loss, a.weight);
}

void launch(Cuda, Stream& stream, const CrossEntropyBackward& a) {
  const RowLaunch geometry = row_launch(a.logits.rows, a.logits.cols);
  if (geometry.blocks == 0) return;
  const int pack = pack_of(a.logits.dtype);
  const bool aligned = rows_are_aligned(a.logits, pack) && rows_are_aligned(a.dlogits, pack);
  visit_threads(geometry, [&]<int kThreads>(Threads<kThreads>) {
    visit_cuda_float(a.logits.dtype, [&]<class T>(TypeTag<T>) {
      backward_kernel<kThreads, T><<<geometry.blocks, threads_of(geometry), 0, native(stream)>>>(a, aligned);
    });
  });
}

void launch(Cuda, Stream& stream, const SoftCrossEntropyForward& a) {
  const RowLaunch geometry = row_result_launch(a.logits.rows, a.logits.cols);
  const int pack = pack_of(a.logits.dtype);
  const bool aligned = rows_are_aligned(a.logits, pack) && rows_are_aligned(a.targets, pack);
  if (geometry.blocks != 0) {
    visit_threads(geometry, [&]<int kThreads>(Threads<kThreads>) {
      visit_cuda_float(a.logits.dtype, [&]<class T>(TypeTag<T>) {
        soft_forward_kernel<kThreads, T><<<geometry.blocks, threads_of(geometry), 0, native(stream)>>>(a, aligned);
      });
    });
  }
  mean_kernel<<<1, kMeanThreads, 0, native(stream)>>>(a.row_loss, a.logits, nullptr, 0, a.loss, a.weight);
}

void launch(Cuda, Stream& stream, const SoftCrossEntropyBackward& a) {
  const RowLaunch geometry = row_launch(a.logits.rows, a.logits.cols);
  if (geometry.blocks == 0) return;
  const int pack = pack_of(a.logits.dtype);
  const bool aligned = rows_are_aligned(a.logits, pack) && rows_are_aligned(a.targets, pack) &&
                       (a.dlogits.data == nullptr || rows_are_aligned(a.dlogits, pack)) &&
                       (a.dtargets.data == nullptr || rows_are_aligned(a.dtargets, pack));
  visit_threads(geometry, [&]<int kThreads>(Threads<kThreads>) {
    visit_cuda_float(a.logits.dtype, [&]<class T>(TypeTag<T>) {
      soft_backward_kernel<kThreads, T><<<geometry.blocks, threads_of(geometry), 0, native(stream)>>>(a, aligned);
    });
  });
}

}  // namespace twinlens
