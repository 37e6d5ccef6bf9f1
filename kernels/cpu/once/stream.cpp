#include "twinlens/kernels/stream.h"

#include <map>

#include "kernels/cpu/once/device_memory.h"

#include "twinlens/kernels/dry_run.h"

namespace twinlens {

namespace {

// Nothing is queued in a dry run, so a card need not be there.
Stream& dry_stream(Device device) {
  thread_local std::map<int, Stream> streams;
  return streams.try_emplace(device.index, device).first->second;
}

}  // namespace

Stream& current_stream(Device device) {
  static Stream cpu{kCpu};
  if (device.is_cpu()) return cpu;
  return DryRun::current() != nullptr ? dry_stream(device) : device_stream(device);
}

Stream& copy_stream(Device device) {
  return device.is_cpu() || DryRun::current() != nullptr ? current_stream(device) : device_copy_stream(device);
}

void synchronize(Stream& stream) {
  if (stream.device().is_cuda() && DryRun::current() == nullptr) device_synchronize(stream);
}

int cuda_device_count() { return device_count(); }

const char* cuda_unavailable_reason() { return device_unavailable_reason(); }

}  // namespace twinlens
