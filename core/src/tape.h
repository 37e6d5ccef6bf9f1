#pragma once
// Parts of the tape that checkpoint() needs. Private to core.

#include <memory>
#include <vector>

#include "twinlens/core/autograd.h"

namespace twinlens {

// Switches recording on in a node's backward, which runs without, to run again what was run in forward and build a tape of its own.
class Recording {
 public:
  Recording();
  ~Recording();
  Recording(const Recording&) = delete;
  Recording& operator=(const Recording&) = delete;

 private:
  bool previous_, again_;
};
// Whether one is alive on this thread: what an op changes beside its results was changed in forward.
bool runs_again();

// While one is alive nothing is recorded on this thread, and the leaves that ops use and that want a gradient are collected.
class LeafProbe {
 public:
  LeafProbe();
  ~LeafProbe();
  LeafProbe(const LeafProbe&) = delete;
  LeafProbe& operator=(const LeafProbe&) = delete;

  void see(const Tensor& x);  // an op's input
  const std::vector<Tensor>& leaves() const { return leaves_; }
  // Those that only ops under another NoGrad use: they get no gradient from there, but must not change before the second run.
  const std::vector<Tensor>& bystanders() const { return bystanders_; }

 private:
  NoGrad guard_;
  LeafProbe* outer_;
  int own_depth_;                            // of NoGrad, with guard_
  std::vector<Tensor> leaves_, bystanders_;  // each once, in the order of use
};

// backward() inside a node's backward: leaves get their gradients, but their hooks are left to the run outside, which knows what is still
// to come.
void backward_within(const Tensor& y, const Tensor& dy);

}  // namespace twinlens
