#pragma once
// What launchers share. They neither allocate nor synchronise; run() selects the device before and looks for launch errors after.

#include <cuda_runtime.h>

#include "kernels/cuda/geometry.h"

#include "twinlens/kernels/stream.h"

namespace twinlens::cuda {

inline cudaStream_t native(const Stream& stream) { return static_cast<cudaStream_t>(stream.native()); }

}  // namespace twinlens::cuda
