#pragma once
// DryRun: a piece of work done without its kernels, to learn how much memory it takes. While one lives, on the calling thread only,
//   - run() starts no kernel, and copies that a card has part in are left out;
//   - allocate() hands out addresses that no memory stands behind and counts them, rounded as those of real blocks are, apart from
//     what memory_report() counts.
// So a step with any batch size is gone through in milliseconds, and its peak is that of the real one whatever its shapes make of it.
//
// Elements are zero or what the host wrote into them (on a card's tensors: nothing) and mean nothing. What has been handed out dies with
// the DryRun: nothing that outlives it may keep a tensor made inside (bind gradients before). DryRuns do not nest.

#include <cstddef>
#include <memory>

#include "twinlens/kernels/device.h"

namespace twinlens {

class DryRun {
 public:
  // Throws DeviceError when the system gives no address space.
  DryRun();
  ~DryRun();
  DryRun(const DryRun&) = delete;
  DryRun& operator=(const DryRun&) = delete;

  // Bytes of the device handed out now, and at the highest.
  std::size_t bytes(Device device) const;
  std::size_t peak_bytes(Device device) const;

  // The calling thread's; null when there is none.
  static DryRun* current();

  // For memory.cpp. take() throws DeviceError when the address space is used up: nothing has as much memory.
  void* take(Device device, std::size_t capacity);
  void give_back(void* data, Device device, std::size_t capacity);

 private:
  struct State;
  std::unique_ptr<State> state_;
};

}  // namespace twinlens
