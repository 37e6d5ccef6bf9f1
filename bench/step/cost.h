#pragma once
// Floating-point operations of one training step: as the textbook counts them, and what is left after the exact cuts.

#include "twinlens/clip/train_step.h"

namespace twinlens::bench {

struct StepCost {
  double nominal = 0.0;    // 3 x forward: dense text rows, full attention, whole last blocks (open_clip's convention)
  double remaining = 0.0;  // the products that are really computed; recomputed parts (attention, chunks) count once
};

// 2 FLOP per multiply-add, products only. `pruned`: the last blocks compute only the row that is read.
StepCost step_cost(const ModelConfig& config, const PairBatch& batch, const StepOptions& options, bool pruned);

}  // namespace twinlens::bench
