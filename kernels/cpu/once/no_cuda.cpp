// Stands in for kernels/cuda/memory.cpp in a build without CUDA: one file of answers, not of kernels.

#include "kernels/cpu/once/device_memory.h"

#include "twinlens/kernels/error.h"
#include "twinlens/kernels/run.h"

namespace twinlens {
namespace {

constexpr const char* kReason =
    "this build has no CUDA; device cuda was asked for; install the CUDA toolkit and configure with -DTWINLENS_CUDA=ON, or use --device "
    "cpu";

}  // namespace

void* device_allocate(Stream&, std::size_t) { throw DeviceError(kReason); }
void device_free(Stream&, void*) {}
void device_copy(Stream&, void*, Device, const void*, Device, std::size_t) { throw DeviceError(kReason); }
Stream& device_stream(Device) { throw DeviceError(kReason); }
void device_synchronize(Stream&) {}
int device_count() { return 0; }
const char* device_unavailable_reason() { return kReason; }
CardMemory device_memory(Device) { throw DeviceError(kReason); }
void run_without_kernel(Stream&, const char*, const void*) { throw DeviceError(kReason); }

}  // namespace twinlens
