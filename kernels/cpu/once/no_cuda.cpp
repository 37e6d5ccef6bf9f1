// Stands in for kernels/cuda/memory.cpp in a build without CUDA: one file of answers, not of kernels.

#include "kernels/cpu/once/device_memory.h"

#include "twinlens/kernels/error.h"
#include "twinlens/kernels/run.h"

namespace twinlens {
namespace {

constexpr const char* kReason =
    "this build has no CUDA; device cuda; install the CUDA toolkit and configure with -DTWINLENS_CUDA=ON, or use --device cpu";

}  // namespace

void* device_allocate(Stream&, std::size_t) { throw DeviceError(kReason); }
void device_free(Stream&, void*) {}
void device_reclaim(Stream&) {}
void device_copy(Stream&, void*, Device, const void*, Device, std::size_t) { throw DeviceError(kReason); }
Stream& device_stream(Device) { throw DeviceError(kReason); }
void device_synchronize(Stream&) {}
int device_count() { return 0; }
const char* device_unavailable_reason() { return kReason; }
CardMemory device_memory(Device) { throw DeviceError(kReason); }
Stream& device_copy_stream(Device) { throw DeviceError(kReason); }
void* pinned_allocate(std::size_t) { throw DeviceError(kReason); }
void pinned_free(void*) {}
void device_copy_pinned(Stream&, void*, const void*, std::size_t) { throw DeviceError(kReason); }
void* event_create(Stream&) { throw DeviceError(kReason); }
void event_destroy(void*) {}
void event_record(void*, Stream&) {}
bool event_reached(void*) { return true; }
void event_wait(void*) {}
void event_hold(void*, Stream&) {}
void graph_begin(Stream&) { throw DeviceError(kReason); }
void* graph_end(Stream&) { throw DeviceError(kReason); }
void graph_abandon(Stream&) noexcept {}
void graph_launch(void*, Stream&) {}
void graph_destroy(void*) {}
void run_without_kernel(Stream&, const char*, const void*) { throw DeviceError(kReason); }

}  // namespace twinlens
