#pragma once
// Event: a mark in a stream of a card. A fresh one has been reached, and so has every one on the CPU, where work is done at once, and in a
// dry run. Events of one card mark streams of that card only.

#include "twinlens/kernels/stream.h"

namespace twinlens {

class Event {
 public:
  Event() = default;
  Event(Event&& other) noexcept;
  Event& operator=(Event&& other) noexcept;
  ~Event();

  // Moves the mark behind everything that is queued on `stream` now.
  void record(Stream& stream);
  // Whether the work before the mark is done.
  bool reached() const;
  // The host waits until it is.
  void wait() const;
  // The same where nothing may be thrown: of a card that has failed, nothing is left to wait for.
  void wait_at_end() const noexcept;
  // What is queued on `stream` from now on waits until it is; the host does not.
  void hold(Stream& stream) const;

 private:
  void* native_ = nullptr;  // cudaEvent_t; null: reached
};

}  // namespace twinlens
