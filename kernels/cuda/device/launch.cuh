#pragma once
// What launchers share. They neither allocate nor synchronise; run() selects the device before and looks for launch errors after.

#include <cuda_runtime.h>

#include "kernels/cuda/geometry.h"

#include "twinlens/kernels/stream.h"

namespace twinlens::cuda {

inline cudaStream_t native(const Stream& stream) { return static_cast<cudaStream_t>(stream.native()); }

// Calls f(Threads<32 or 256>{}): the number of threads that share a row as a constant.
template <int kThreads>
struct Threads {
  static constexpr int value = kThreads;
};
template <class F>
void visit_threads(const RowLaunch& geometry, F&& f) {
  if (geometry.threads_per_row == kWarp) {
    f(Threads<kWarp>{});
  } else {
    f(Threads<256>{});
  }
}
// Lets a kernel that has no fixed shared memory ask for `bytes` at its launch. What is set belongs to the process, and another thread's
// launch may ask for more: so it is all that a block can have.
inline std::int64_t shared_limit(const Stream& stream) {
  int bytes = 48 * 1024;
  static_cast<void>(cudaDeviceGetAttribute(&bytes, cudaDevAttrMaxSharedMemoryPerBlockOptin, stream.device().index));
  return bytes;
}
template <class Kernel>
void allow_shared(const Stream& stream, Kernel kernel, std::int64_t bytes) {
  if (bytes <= 48 * 1024) return;
  static_cast<void>(cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, static_cast<int>(shared_limit(stream))));
}

inline dim3 threads_of(const RowLaunch& geometry) { return dim3(geometry.threads_per_row, geometry.rows_per_block); }

template <class R>
bool rows_are_aligned(const R& x, int pack) {
  return packs_are_aligned(x.data, x.stride, size_of(x.dtype), pack);
}

}  // namespace twinlens::cuda
