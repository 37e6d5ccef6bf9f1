#include "kernels/cuda/device/element.cuh"
#include "kernels/cuda/device/launch.cuh"
#include "kernels/cuda/device/rows.cuh"

#include "twinlens/kernels/topk.h"

namespace twinlens {
namespace {

using namespace cuda;

template <class V>
struct Candidate {
  V value;
  long long index;  // -1: none
};

// Whether a stands before b in the result: larger first, NaN before every number, equals by lower index.
__device__ bool stands_before(float a, long long ia, float b, long long ib) {
  const bool a_nan = isnan(a), b_nan = isnan(b);
  if (a_nan != b_nan) return a_nan;
  return a == b || a_nan ? ia < ib : a > b;
}
__device__ bool stands_before(long long a, long long ia, long long b, long long ib) { return a == b ? ia < ib : a > b; }

template <class V>
__device__ Candidate<V> first_of(const Candidate<V>& a, const Candidate<V>& b) {
  if (a.index < 0) return b;
  if (b.index < 0) return a;
  return stands_before(a.value, a.index, b.value, b.index) ? a : b;
}

template <class V>
__device__ Candidate<V> shuffled(const Candidate<V>& x, int offset) {
  return {__shfl_xor_sync(0xFFFFFFFFU, x.value, offset), __shfl_xor_sync(0xFFFFFFFFU, x.index, offset)};
}

__device__ float comparable(float x) { return x; }
__device__ float comparable(bf16 x) { return to_float(x); }
__device__ float comparable(f16 x) { return to_float(x); }
__device__ long long comparable(std::int64_t x) { return x; }

// The first element of the row that stands behind `previous`; all threads of the group get it.
template <int kThreads, class V, class T>
__device__ Candidate<V> next_of_row(const T* x, std::int64_t c, const Candidate<V>& previous) {
  Candidate<V> best{V(0), -1};
  for (std::int64_t i = threadIdx.x; i < c; i += kThreads) {
    const V v = comparable(x[i]);
    if (previous.index >= 0 && !stands_before(previous.value, previous.index, v, i)) continue;
    best = first_of(best, Candidate<V>{v, i});
  }
  return group_reduce<kThreads>(best, [](const Candidate<V>& a, const Candidate<V>& b) { return first_of(a, b); });
}

// One pass over the row for each of the k: it lies in cache, and k is small where it matters. `values` is null for argmax.
template <int kThreads, class V, class T>
__global__ void __launch_bounds__(256) topk_kernel(ConstRows x, std::int64_t k, T* values, std::int64_t* indices) {
  const std::int64_t r = group_row();
  if (r >= valid_rows(x)) return;
  const T* row = row_of<T>(x, r);
  Candidate<V> found{V(0), -1};
  for (std::int64_t j = 0; j < k; ++j) {
    found = next_of_row<kThreads>(row, x.cols, found);
    if (threadIdx.x != 0) continue;
    if (values != nullptr) values[r * k + j] = row[found.index];
    indices[r * k + j] = found.index;
  }
}

template <int kThreads, class T>
__global__ void __launch_bounds__(256) backward_kernel(TopKBackward a) {
  const std::int64_t r = group_row(), k = a.dy.cols;
  if (r >= valid_rows(a.dy)) return;
  T* dx = row_of<T>(a.dx, r);
  const T* dy = row_of<T>(a.dy, r);
  for (std::int64_t i = threadIdx.x; i < a.dx.cols; i += kThreads) dx[i] = T{};
  if constexpr (kThreads == kWarp) {
    __syncwarp();
  } else {
    __syncthreads();
  }
  for (std::int64_t j = threadIdx.x; j < k; j += kThreads) dx[a.indices[r * k + j]] = dy[j];  // no index occurs twice in a row
}

template <class V, class T>
void launch_topk(Stream& stream, const ConstRows& x, std::int64_t k, T* values, std::int64_t* indices) {
  const RowLaunch geometry = row_launch(x.rows, x.cols);
  if (geometry.blocks == 0 || k == 0) return;
  visit_threads(geometry, [&]<int kThreads>(Threads<kThreads>) {
    topk_kernel<kThreads, V><<<geometry.blocks, threads_of(geometry), 0, native(stream)>>>(x, k, values, indices);
  });
}

}  // namespace

void launch(Cuda, Stream& stream, const TopKForward& a) {
  visit_cuda_float(a.x.dtype,
                   [&]<class T>(TypeTag<T>) { launch_topk<float>(stream, a.x, a.values.cols, static_cast<T*>(a.values.data), a.indices); });
}

void launch(Cuda, Stream& stream, const TopKBackward& a) {
  const RowLaunch geometry = row_launch(a.dx.rows, a.dx.cols);
  if (geometry.blocks == 0) return;
  visit_threads(geometry, [&]<int kThreads>(Threads<kThreads>) {
    visit_cuda_float(a.dy.dtype, [&]<class T>(TypeTag<T>) {
      backward_kernel<kThreads, T><<<geometry.blocks, threads_of(geometry), 0, native(stream)>>>(a);
    });
  });
}

void launch(Cuda, Stream& stream, const ArgMax& a) {
  if (a.x.dtype == DType::i64) return launch_topk<long long, std::int64_t>(stream, a.x, 1, nullptr, a.indices);
  visit_cuda_float(a.x.dtype, [&]<class T>(TypeTag<T>) { launch_topk<float, T>(stream, a.x, 1, nullptr, a.indices); });
}

}  // namespace twinlens
