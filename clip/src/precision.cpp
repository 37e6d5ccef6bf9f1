#include "twinlens/clip/precision.h"

#include "twinlens/core/tensor.h"
#include "twinlens/kernels/error.h"

namespace twinlens {

Compute compute_of_precision(const std::string& name, Device device) {
  if (name == "fp32") return Compute::fp32;
  if (name == "tf32") return device.is_cuda() ? Compute::tf32 : Compute::fp32;
  if (name == "amp_bf16" || name == "bf16") return Compute::bf16;
  if (name == "amp" && device.is_cuda()) return Compute::f16;
  throw UsageError("precision '" + name + "' is not available on " + to_string(device) + "; --precision; use fp32 or amp_bf16");
}

}  // namespace twinlens
