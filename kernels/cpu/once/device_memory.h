#pragma once
// What kernels/cuda provides to memory.cpp and stream.cpp; without CUDA, no_cuda.cpp answers in its place.

#include <cstddef>

#include "twinlens/kernels/memory.h"

namespace twinlens {

void* device_allocate(Stream& stream, std::size_t bytes);  // null when there is not enough
void device_free(Stream& stream, void* data);              // never throws
void device_copy(Stream& stream, void* to, Device to_device, const void* from, Device from_device, std::size_t bytes);
Stream& device_stream(Device device);
void device_synchronize(Stream& stream);
int device_count();
const char* device_unavailable_reason();
CardMemory device_memory(Device device);

}  // namespace twinlens
