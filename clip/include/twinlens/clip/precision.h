#pragma once
// The names that --precision takes (open_clip's, and bf16 for amp_bf16): what a model computes in.

#include <string>

#include "twinlens/kernels/compute.h"
#include "twinlens/kernels/device.h"

namespace twinlens {

// fp32, tf32 (fp32 on the CPU), amp_bf16 or bf16, amp (f16, on CUDA only). Throws ConfigError for other names and for what the device does
// not compute.
Compute compute_of_precision(const std::string& name, Device device);

}  // namespace twinlens
