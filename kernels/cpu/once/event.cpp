#include "twinlens/kernels/event.h"

#include <utility>

#include "kernels/cpu/once/device_memory.h"

#include "twinlens/kernels/dry_run.h"
#include "twinlens/kernels/error.h"

namespace twinlens {

Event::Event(Event&& other) noexcept : native_(std::exchange(other.native_, nullptr)) {}

Event& Event::operator=(Event&& other) noexcept {
  std::swap(native_, other.native_);
  return *this;
}

Event::~Event() {
  if (native_ != nullptr) event_destroy(native_);
}

void Event::record(Stream& stream) {
  if (stream.device().is_cpu() || DryRun::current() != nullptr) return;
  if (native_ == nullptr) native_ = event_create(stream);
  event_record(native_, stream);
}

bool Event::reached() const { return native_ == nullptr || event_reached(native_); }

void Event::wait() const {
  if (native_ != nullptr) event_wait(native_);
}

void Event::wait_at_end() const noexcept {
  try {
    wait();
  } catch (const Error&) {  // said where it happened
  }
}

void Event::hold(Stream& stream) const {
  if (native_ != nullptr) event_hold(native_, stream);
}

}  // namespace twinlens
