// Devices, streams and device memory on the CUDA runtime. A build without CUDA has kernels/cpu/once/no_cuda.cpp in this place.

#include <atomic>
#include <cuda_runtime.h>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "kernels/cpu/once/device_memory.h"
#include "kernels/cuda/architectures.h"

#include "twinlens/kernels/error.h"
#include "twinlens/kernels/run.h"

namespace twinlens {
namespace {

cudaStream_t native(const Stream& stream) { return static_cast<cudaStream_t>(stream.native()); }

void check_cuda(cudaError_t error, const char* what, Device device) {
  if (error == cudaSuccess) return;
  static_cast<void>(cudaGetLastError());  // so that the next call does not report it again
  throw DeviceError(std::string(what) + " failed: " + cudaGetErrorString(error) + "; cuda:" + std::to_string(device.index) +
                    "; see the driver's log, or run with compute-sanitizer to find the kernel at fault");
}

// --- which devices there are -----------------------------------------------------------------------------------------------------------
struct Devices {
  int count = 0;       // the leading ones that this build has code for
  std::string reason;  // why there is none; one line
};

std::string without_driver(cudaError_t error) {
  int driver = 0;
  static_cast<void>(cudaDriverGetVersion(&driver));
  const auto version = [](int v) { return std::to_string(v / 1000) + "." + std::to_string(v % 1000 / 10); };
  if (driver == 0) return "no NVIDIA driver was found; device cuda; install the driver, or use --device cpu";
  if (error == cudaErrorInsufficientDriver) {
    return "the NVIDIA driver is too old: it serves CUDA " + version(driver) + ", this build needs " + version(CUDART_VERSION) +
           "; device cuda; update the driver, or use --device cpu";
  }
  return std::string("no NVIDIA card can be used (") + cudaGetErrorString(error) +
         "); device cuda; check nvidia-smi and CUDA_VISIBLE_DEVICES, or use --device cpu";
}

Devices find_devices() {
  Devices found;
  int count = 0;
  const cudaError_t error = cudaGetDeviceCount(&count);
  static_cast<void>(cudaGetLastError());
  if (error != cudaSuccess || count == 0) {
    found.reason = without_driver(error == cudaSuccess ? cudaErrorNoDevice : error);
    return found;
  }
  // The runtime lists the fastest card first; the others count up to one that cannot be used.
  for (int i = 0; i < count; ++i) {
    int major = 0, minor = 0;
    static_cast<void>(cudaDeviceGetAttribute(&major, cudaDevAttrComputeCapabilityMajor, i));
    static_cast<void>(cudaDeviceGetAttribute(&minor, cudaDevAttrComputeCapabilityMinor, i));
    const int card = major * 10 + minor;
    if (!built_for(TWINLENS_CUDA_BUILT_FOR, card)) {
      if (i == 0) found.reason = no_code_for(TWINLENS_CUDA_BUILT_FOR, card);
      break;
    }
    found.count = i + 1;
  }
  return found;
}

const Devices& devices() {
  static const Devices found = find_devices();
  return found;
}

// --- streams ---------------------------------------------------------------------------------------------------------------------------
// A thread takes a stream of a device at its first use and gives it back when it ends. Streams are never destroyed: cached memory is
// ordered on them, and the next thread continues where the last one stopped.
struct FreeStreams {
  std::mutex mutex;
  std::map<int, std::vector<Stream*>> by_device;
};
FreeStreams& free_streams() {
  static auto* streams = new FreeStreams();
  return *streams;
}

cudaMemPool_t pool_of(Device device) {
  cudaMemPool_t pool = nullptr;
  check_cuda(cudaDeviceGetDefaultMemPool(&pool, device.index), "cudaDeviceGetDefaultMemPool", device);
  return pool;
}

// The driver keeps what is freed, as this library's own cache does: a steady step takes nothing from it.
void keep_freed_memory(Device device) {
  std::uint64_t all = ~std::uint64_t{0};
  check_cuda(cudaMemPoolSetAttribute(pool_of(device), cudaMemPoolAttrReleaseThreshold, &all), "cudaMemPoolSetAttribute", device);
}

// Bytes that the driver keeps and would give to the next allocation.
std::size_t kept_by_driver(Device device) {
  std::uint64_t reserved = 0, used = 0;
  check_cuda(cudaMemPoolGetAttribute(pool_of(device), cudaMemPoolAttrReservedMemCurrent, &reserved), "cudaMemPoolGetAttribute", device);
  check_cuda(cudaMemPoolGetAttribute(pool_of(device), cudaMemPoolAttrUsedMemCurrent, &used), "cudaMemPoolGetAttribute", device);
  return static_cast<std::size_t>(reserved > used ? reserved - used : 0);
}

// The card that was used first: pinned memory is made in its context, not in one of card 0 that nothing else needs.
std::atomic<int> first_used{-1};

Stream* take_stream(Device device) {
  FreeStreams& streams = free_streams();
  const std::lock_guard lock(streams.mutex);
  std::vector<Stream*>& available = streams.by_device[device.index];
  if (!available.empty()) {
    Stream* stream = available.back();
    available.pop_back();
    return stream;
  }
  check_cuda(cudaSetDevice(device.index), "cudaSetDevice", device);
  int none = -1;
  first_used.compare_exchange_strong(none, device.index);
  keep_freed_memory(device);
  cudaStream_t made = nullptr;
  check_cuda(cudaStreamCreateWithFlags(&made, cudaStreamNonBlocking), "cudaStreamCreate", device);
  return new Stream(device, made);
}

// Of one kind: for work, or for copies.
struct ThreadStreams {
  std::vector<Stream*> of_device;
  Stream& on(Device device) {
    if (device_count() == 0) throw DeviceError(device_unavailable_reason());
    if (device.index < 0 || device.index >= device_count()) {
      throw DeviceError("there is no cuda:" + std::to_string(device.index) + "; this machine has " + std::to_string(device_count()) +
                        " usable card(s); use a lower index");
    }
    const auto index = static_cast<std::size_t>(device.index);
    if (of_device.size() <= index) of_device.resize(index + 1);
    Stream*& stream = of_device[index];
    if (stream == nullptr) stream = take_stream(device);
    return *stream;
  }
  ~ThreadStreams() {
    FreeStreams& streams = free_streams();
    const std::lock_guard lock(streams.mutex);
    for (Stream* stream : of_device) {
      if (stream != nullptr) streams.by_device[stream->device().index].push_back(stream);
    }
  }
};

}  // namespace

int device_count() { return devices().count; }
const char* device_unavailable_reason() { return devices().reason.c_str(); }

CardMemory device_memory(Device device) {
  select_cuda_device(device_stream(device));
  CardMemory memory;
  check_cuda(cudaMemGetInfo(&memory.free, &memory.total), "cudaMemGetInfo", device);
  memory.free += kept_by_driver(device);
  return memory;
}

void run_without_kernel(Stream&, const char* op, const void*) {
  throw DeviceError(std::string(op) + ": has no CUDA kernel in this build; device cuda; run it on the CPU (see docs/status.md)");
}

Stream& device_stream(Device device) {
  thread_local ThreadStreams streams;
  return streams.on(device);
}

Stream& device_copy_stream(Device device) {
  thread_local ThreadStreams streams;
  return streams.on(device);
}

void device_synchronize(Stream& stream) { check_cuda(cudaStreamSynchronize(native(stream)), "waiting for the device", stream.device()); }

void* device_allocate(Stream& stream, std::size_t bytes) {
  select_cuda_device(stream);
  void* data = nullptr;
  const cudaError_t error = cudaMallocAsync(&data, bytes, native(stream));
  if (error == cudaErrorMemoryAllocation) {
    static_cast<void>(cudaGetLastError());
    return nullptr;
  }
  check_cuda(error, "cudaMallocAsync", stream.device());
  return data;
}

void device_free(Stream& stream, void* data) {
  // Called while errors unwind and at exit, when the driver may be gone: nothing useful can be said about a failure.
  static_cast<void>(cudaFreeAsync(data, native(stream)));
  static_cast<void>(cudaGetLastError());
}

// What was freed in the order of a stream may count as taken until the host has waited, and is kept for blocks of its own size.
void device_reclaim(Stream& stream) {
  select_cuda_device(stream);
  check_cuda(cudaDeviceSynchronize(), "waiting for the device", stream.device());
  check_cuda(cudaMemPoolTrimTo(pool_of(stream.device()), 0), "cudaMemPoolTrimTo", stream.device());
}

void device_copy(Stream& stream, void* to, Device to_device, const void* from, Device from_device, std::size_t bytes) {
  select_cuda_device(stream);
  if (to_device.is_cuda() && from_device.is_cuda() && to_device != from_device) {
    // The copy runs on the target's stream; what makes the source runs on the other card's.
    device_synchronize(device_stream(from_device));
    select_cuda_device(stream);
    check_cuda(cudaMemcpyPeerAsync(to, to_device.index, from, from_device.index, bytes, native(stream)), "a copy between cards", to_device);
    device_synchronize(stream);  // the source may be freed next, in the order of a stream that does not know of the copy
    return;
  }
  check_cuda(cudaMemcpyAsync(to, from, bytes, cudaMemcpyDefault, native(stream)), "a copy", stream.device());
  // Host to device: pageable memory has been staged when the call returns, so the caller may overwrite it. Device to host must have
  // arrived.
  if (to_device.is_cpu()) device_synchronize(stream);
}

// --- pinned memory and events ------------------------------------------------------------------------------------------------------------
void* pinned_allocate(std::size_t bytes) {
  const Device device{DeviceType::cuda, first_used < 0 ? 0 : first_used.load()};
  check_cuda(cudaSetDevice(device.index), "cudaSetDevice", device);
  void* data = nullptr;
  const cudaError_t error = cudaHostAlloc(&data, bytes, cudaHostAllocPortable);
  if (error == cudaErrorMemoryAllocation) {
    static_cast<void>(cudaGetLastError());
    return nullptr;
  }
  check_cuda(error, "cudaHostAlloc", device);
  return data;
}

void pinned_free(void* data) {
  static_cast<void>(cudaFreeHost(data));
  static_cast<void>(cudaGetLastError());
}

void device_copy_pinned(Stream& stream, void* to, const void* from, std::size_t bytes) {
  select_cuda_device(stream);
  check_cuda(cudaMemcpyAsync(to, from, bytes, cudaMemcpyDefault, native(stream)), "a copy of pinned memory", stream.device());
}

void* event_create(Stream& stream) {
  select_cuda_device(stream);
  cudaEvent_t event = nullptr;
  // The host sleeps while it waits: a step is long, and the loader's workers want the core.
  check_cuda(cudaEventCreateWithFlags(&event, cudaEventDisableTiming | cudaEventBlockingSync), "cudaEventCreate", stream.device());
  return event;
}

void event_destroy(void* event) {
  static_cast<void>(cudaEventDestroy(static_cast<cudaEvent_t>(event)));
  static_cast<void>(cudaGetLastError());
}

void event_record(void* event, Stream& stream) {
  select_cuda_device(stream);
  check_cuda(cudaEventRecord(static_cast<cudaEvent_t>(event), native(stream)), "cudaEventRecord", stream.device());
}

bool event_reached(void* event) {
  const cudaError_t error = cudaEventQuery(static_cast<cudaEvent_t>(event));
  if (error == cudaErrorNotReady) {
    static_cast<void>(cudaGetLastError());
    return false;
  }
  check_cuda(error, "work before an event", {DeviceType::cuda, 0});
  return true;
}

void event_wait(void* event) {
  check_cuda(cudaEventSynchronize(static_cast<cudaEvent_t>(event)), "waiting for an event", {DeviceType::cuda, 0});
}

void event_hold(void* event, Stream& stream) {
  select_cuda_device(stream);
  check_cuda(cudaStreamWaitEvent(native(stream), static_cast<cudaEvent_t>(event), 0), "cudaStreamWaitEvent", stream.device());
}

// --- graphs ------------------------------------------------------------------------------------------------------------------------------
// Of this thread only: workers may allocate pinned memory meanwhile.
void graph_begin(Stream& stream) {
  select_cuda_device(stream);
  check_cuda(cudaStreamBeginCapture(native(stream), cudaStreamCaptureModeThreadLocal), "cudaStreamBeginCapture", stream.device());
}

void* graph_end(Stream& stream) {
  cudaGraph_t recorded = nullptr;
  check_cuda(cudaStreamEndCapture(native(stream), &recorded), "cudaStreamEndCapture", stream.device());
  cudaGraphExec_t ready = nullptr;
  const cudaError_t error = cudaGraphInstantiateWithFlags(&ready, recorded, 0);
  static_cast<void>(cudaGraphDestroy(recorded));
  check_cuda(error, "cudaGraphInstantiate", stream.device());
  return ready;
}

void graph_abandon(Stream& stream) noexcept {
  cudaGraph_t recorded = nullptr;
  static_cast<void>(cudaStreamEndCapture(native(stream), &recorded));
  if (recorded != nullptr) static_cast<void>(cudaGraphDestroy(recorded));
  static_cast<void>(cudaGetLastError());
}

void graph_launch(void* graph, Stream& stream) {
  select_cuda_device(stream);
  check_cuda(cudaGraphLaunch(static_cast<cudaGraphExec_t>(graph), native(stream)), "cudaGraphLaunch", stream.device());
}

void graph_destroy(void* graph) {
  static_cast<void>(cudaGraphExecDestroy(static_cast<cudaGraphExec_t>(graph)));
  static_cast<void>(cudaGetLastError());
}

void select_cuda_device(const Stream& stream) { check_cuda(cudaSetDevice(stream.device().index), "cudaSetDevice", stream.device()); }

void check_cuda_launch(const char* op, const Stream& stream) { check_cuda(cudaGetLastError(), op, stream.device()); }

}  // namespace twinlens
