#pragma once
// StepInputs: what the towers and the loss read of a batch, or of some of its pairs.

#include "twinlens/clip/train_step.h"

namespace twinlens {

struct StepInputs {
  Tensor pixels;           // (n, S, S, 3)
  PatchSelection patches;  // absent: all
  TokenBatch captions;     // distinct ones, and with row_buckets some that no pair has
  Tensor caption_row;      // (n) i64: row of each pair's caption among them; absent when they are the pairs' own
  Tensor caption_ids;      // (n) i64; absent unless these are all pairs of the batch
  StepInputs to(Device device) const;
};

// Of the pairs [begin, end). Pixels stay where they are; the rest is on the host.
StepInputs step_inputs(const Clip& model, const PairBatch& batch, std::int64_t begin, std::int64_t end, const StepOptions& options,
                       bool training);

// The step of all pairs at once, on inputs that lie where the model is: queue_forward_backward without chunks.
Tensor queue_forward_backward(Clip& model, const StepInputs& inputs, const StepOptions& options, const Context& context,
                              Communicator& communicator, FeatureFigures* figures = nullptr);

// The number of pairs, when all parts of the batch have it.
std::int64_t pairs_of(const PairBatch& batch);

}  // namespace twinlens
