// Copies between devices, and the way of small ones through pinned memory.

#include <atomic>
#include <cstring>
#include <map>
#include <mutex>
#include <string>

#include "kernels/cpu/once/device_memory.h"
#include "kernels/cpu/once/staging.h"

#include "twinlens/kernels/dry_run.h"
#include "twinlens/kernels/error.h"
#include "twinlens/kernels/graph.h"
#include "twinlens/kernels/scope.h"

namespace twinlens {
namespace {

std::atomic<bool> staged_copies{false};

// False where the copy takes another way. Rings live as long as streams do: for good.
bool stage(Stream& stream, void* to, const void* from, std::size_t bytes) {
  constexpr std::size_t kRing = std::size_t{64} << 20;  // the small inputs of a step (ids, places) wait here for the step before
  if (!staged_copies) return false;
  static std::mutex mutex;
  static auto* rings = new std::map<Stream*, Staging*>();
  Staging* ring = nullptr;
  {
    const std::lock_guard lock(mutex);
    Staging*& slot = (*rings)[&stream];
    if (slot == nullptr) slot = new Staging(kRing);
    ring = slot;
  }
  if (bytes > ring->largest()) return false;
  ring->copy(stream, to, from, bytes);
  return true;
}

// What the host's memory holds when a graph is launched is not what it held when the graph was recorded.
void refuse_recording(std::size_t bytes) {
  if (!Graph::recording()) return;
  throw DeviceError("graph: " + std::to_string(bytes) + " bytes are copied between the host and a card while a step is recorded" +
                    (Scope::path().empty() ? "" : " in " + Scope::path()) + "; cuda; leave --cuda-graphs out");
}

}  // namespace

void copy_bytes(Stream& stream, void* to, Device to_device, const void* from, Device from_device, std::size_t bytes) {
  if (bytes == 0) return;
  if (to_device.is_cpu() && from_device.is_cpu()) {
    std::memcpy(to, from, bytes);
    return;
  }
  if (DryRun::current() != nullptr) return;
  if (to_device.is_cpu() || from_device.is_cpu()) refuse_recording(bytes);
  if (!(from_device.is_cpu() && stage(stream, to, from, bytes))) device_copy(stream, to, to_device, from, from_device, bytes);
}

void copy_pinned(Stream& stream, void* to, const void* from, std::size_t bytes) {
  if (bytes == 0 || DryRun::current() != nullptr) return;
  refuse_recording(bytes);
  device_copy_pinned(stream, to, from, bytes);
}

void set_staged_copies(bool on) { staged_copies = on; }

}  // namespace twinlens
