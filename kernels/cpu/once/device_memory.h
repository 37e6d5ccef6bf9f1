#pragma once
// What kernels/cuda provides to memory.cpp and stream.cpp; without CUDA, no_cuda.cpp answers in its place.

#include <cstddef>

#include "twinlens/kernels/memory.h"

namespace twinlens {

void* device_allocate(Stream& stream, std::size_t bytes);  // null when there is not enough
void device_free(Stream& stream, void* data);              // never throws
void device_reclaim(Stream& stream);                       // waits for the card, then what was freed there is free
void device_copy(Stream& stream, void* to, Device to_device, const void* from, Device from_device, std::size_t bytes);
Stream& device_stream(Device device);
void device_synchronize(Stream& stream);
int device_count();
const char* device_unavailable_reason();
CardMemory device_memory(Device device);

Stream& device_copy_stream(Device device);
void* pinned_allocate(std::size_t bytes);                                                // null when there is not enough
void pinned_free(void* data);                                                            // never throws
void device_copy_pinned(Stream& stream, void* to, const void* from, std::size_t bytes);  // returns at once
void* event_create(Stream& stream);
void event_destroy(void* event);  // never throws
void event_record(void* event, Stream& stream);
bool event_reached(void* event);
void event_wait(void* event);
void event_hold(void* event, Stream& stream);

void graph_begin(Stream& stream);             // what this thread queues there from now on is recorded and not done
void* graph_end(Stream& stream);              // what was recorded, ready to be launched
void graph_abandon(Stream& stream) noexcept;  // or forgotten
void graph_launch(void* graph, Stream& stream);
void graph_destroy(void* graph);  // never throws

}  // namespace twinlens
