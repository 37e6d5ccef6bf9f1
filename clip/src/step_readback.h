#pragma once
// StepReadback: what a card says of its steps, read by the host when it comes to it. The record of a step is copied into one of two pinned
// places in stream order, so the next step may be queued before the host looks.

#include <array>

#include "twinlens/core/tensor.h"
#include "twinlens/kernels/event.h"
#include "twinlens/kernels/memory.h"
#include "twinlens/kernels/step_verdict.h"

namespace twinlens {

class StepReadback {
 public:
  explicit StepReadback(Device device);
  ~StepReadback();  // waits for copies under way
  StepReadback(const StepReadback&) = delete;
  StepReadback& operator=(const StepReadback&) = delete;

  // Where the verdict goes (judge_step).
  const Tensor& record() const { return record_; }
  // Behind the verdict of a step. At most two are queued and not taken.
  void queue();
  std::int64_t queued() const { return queued_ - taken_; }
  // The oldest that is queued; waits for it.
  StepRecord take();

 private:
  struct Place {
    Memory pinned;
    Event copied;
  };
  Tensor record_;  // a StepRecord in the card's memory
  std::array<Place, 2> places_;
  std::int64_t queued_ = 0, taken_ = 0;
};

}  // namespace twinlens
