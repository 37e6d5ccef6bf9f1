#pragma once
// Stream: an ordered queue of work on one device. On the CPU work is done at once, so a CPU stream carries nothing. On CUDA it wraps a
// cudaStream_t. Kernels take the stream explicitly; ops use current_stream(device), which belongs to the calling thread.
//
// A stream outlives the memory that is allocated or cached on it: release_cached_memory() before it ends.

#include "twinlens/kernels/device.h"

namespace twinlens {

class Stream {
 public:
  explicit Stream(Device device, void* native = nullptr) : device_(device), native_(native) {}

  Device device() const { return device_; }
  // cudaStream_t of a CUDA stream; null (the legacy default stream) otherwise.
  void* native() const { return native_; }

 private:
  Device device_;
  void* native_;
};

// The calling thread's stream of `device`. Throws DeviceError when the card does not exist or the build has no CUDA; the CPU is one, and
// its index is not looked at.
Stream& current_stream(Device device);

// A second stream of a card, for copies beside the work of current_stream(device); it, too, belongs to the calling thread. Events order the
// two. On the CPU there is one stream.
Stream& copy_stream(Device device);

// Waits until everything queued on the stream is done. A no-op on the CPU.
void synchronize(Stream& stream);

// Number of CUDA devices that can be used; 0 without CUDA, without a driver or without a card. Never throws.
int cuda_device_count();

// One line that says why CUDA cannot be used and what to do; empty when it can.
const char* cuda_unavailable_reason();

}  // namespace twinlens
