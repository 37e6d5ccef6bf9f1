#include "twinlens/kernels/stream.h"

#include <string>

#include "kernels/cpu/once/device_memory.h"

#include "twinlens/kernels/error.h"
#include "twinlens/kernels/run.h"

namespace twinlens {

Stream& current_stream(Device device) {
  static Stream cpu{kCpu};
  return device.is_cpu() ? cpu : device_stream(device);
}

void synchronize(Stream& stream) {
  if (stream.device().is_cuda()) device_synchronize(stream);
}

int cuda_device_count() { return device_count(); }

const char* cuda_unavailable_reason() { return device_unavailable_reason(); }

void throw_no_cuda_kernel(const char* op) {
  throw DeviceError(std::string(op) + ": has no CUDA kernel in this build; device cuda; run it on the CPU (see docs/status.md)");
}

}  // namespace twinlens
