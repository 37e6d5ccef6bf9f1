#pragma once
// How a step fits into a limit of tensor memory (what memory_report counts: parameters, optimizer state, activations, batches that wait;
// not the program itself, nor blocks kept for reuse). Of three ways the first that fits is taken, the cheaper one first:
//   store       the whole batch at once, every activation kept (3 forward passes' worth of work)
//   checkpoint  the whole batch at once, Transformer blocks recomputed in backward (4)
//   cached      features of the whole batch, then chunk by chunk with everything kept (4); with recomputing as well when not even one
//               pair fits (5)
// All three give the same gradient; docs/large-batches.md.
//
// Steps on made-up pairs are gone through without their kernels (twinlens/kernels/dry_run.h), so the peak is the real one's for any model,
// batch, chunk, precision and device; what differs is what the batch brings: the lengths of its captions and how many of them are equal.
// Takes milliseconds a try. Parameters, running statistics and random numbers are not touched; gradients are.

#include <vector>

#include "twinlens/clip/train_step.h"

namespace twinlens {

struct MemoryPlan {
  std::int64_t chunk = 0;          // pairs encoded at once; 0: the whole batch
  bool checkpoint_blocks = false;  // recompute Transformer blocks in backward
  std::size_t resident = 0;        // bytes that are there between steps
  double step = 0.0;               // bytes at the peak of a step done this way
  double whole_batch = 0.0;        // and of one that keeps everything of the whole batch; infinite where no address space has them
};

struct MemoryBudget {
  std::int64_t pairs = 0;                       // of a step
  std::int64_t waiting = 0;                     // batches of pictures beside that of the step, in the same memory
  std::size_t limit = 0;                        // bytes
  std::vector<std::int64_t> caption_lengths{};  // tokens of some captions, as they will come; none: the context length
  std::vector<std::int64_t> caption_ids{};      // of those, equal for equal ones, below their number; none: all differ
  std::size_t update = 0;                       // bytes that the update takes beside what is resident, when the step's are gone
  bool pixels_on_card = false;                  // all of the step's pictures lie there before it
};

// The way that fits, with chunks of `options.max_chunk` at most. With context.checkpoint_blocks set, blocks are recomputed in any case.
// Throws ConfigError when not even one pair at a time fits.
MemoryPlan plan_memory(Clip& model, const StepOptions& options, const Context& context, Communicator& communicator,
                       const MemoryBudget& budget);

// What a step takes that is done as `options` and `context` say, whatever the limit.
MemoryPlan predict_memory(Clip& model, const StepOptions& options, const Context& context, Communicator& communicator,
                          const MemoryBudget& budget);

std::string to_string(const MemoryPlan& plan, const MemoryBudget& budget);
// Before the first step on a card, and after it.
std::string prediction_text(const MemoryPlan& plan, const MemoryBudget& budget, Device device);
std::string comparison_text(const MemoryPlan& plan, Device device);

// What was seen since the planning: the peak of tensors, as planned, and that of the whole process, whose program, text and blocks kept
// for reuse are not in the plan.
std::string memory_seen(Device device);

}  // namespace twinlens
