#pragma once
// How many pairs a step may encode at once within a limit of tensor memory (what memory_report counts: parameters, optimizer state,
// activations, batches that wait; not the program itself, nor blocks kept for reuse).
//
// A few small steps on made-up pairs with captions of full length are measured, and a straight line is drawn through them; the loss,
// which sees the whole batch whatever the chunk, is measured apart and may grow with the square. Parameters, running statistics and
// random numbers are not touched; gradients are.

#include "twinlens/clip/train_step.h"

namespace twinlens {

struct MemoryPlan {
  std::int64_t chunk = 0;       // pairs encoded at once; 0: the whole batch
  std::size_t resident = 0;     // bytes that are there between steps
  std::size_t step = 0;         // estimated peak of a step with this chunk
  std::size_t whole_batch = 0;  // and of one with the whole batch
};

struct MemoryBudget {
  std::int64_t pairs = 0;    // of a step
  std::int64_t waiting = 0;  // batches of pictures that the loader holds, in the same memory
  std::size_t limit = 0;     // bytes
};

// The largest chunk that fits, `options.max_chunk` at most. Throws ConfigError when not even one pair at a time fits.
MemoryPlan plan_memory(Clip& model, const StepOptions& options, const Context& context, Communicator& communicator,
                       const MemoryBudget& budget);

std::string to_string(const MemoryPlan& plan, const MemoryBudget& budget);

}  // namespace twinlens
