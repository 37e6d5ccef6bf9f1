// How much memory a step takes: planned with --memory-limit, predicted on a card, and compared with what the first step took.

#include <algorithm>
#include <fmt/format.h>
#include <unordered_map>

#include "clip/src/training.h"

#include "twinlens/core/random.h"
#include "twinlens/kernels/memory.h"

namespace twinlens {

// Captions drawn as a batch is say how long packed text will be, and how much of it stands there twice.
MemoryBudget Training::memory_budget() const {
  MemoryBudget budget;
  budget.pairs = o_.batch_size * o_.accum_freq;
  budget.waiting = device_.is_cuda() ? o_.prefetch_batches + (o_.cuda_graphs ? 1 : 0) : std::max(1, o_.workers) + 2;
  budget.pixels_on_card = o_.prefetch_batches > 0;
  if (ema_ != nullptr) budget.update = static_cast<std::size_t>(ema_->average.count()) * sizeof(float);
  const std::int64_t looked_at = std::min<std::int64_t>(data_->size(), std::clamp<std::int64_t>(budget.pairs, 512, 4096));
  const Permutation drawn(data_->size(), o_.seed, 0);
  std::unordered_map<std::int64_t, std::int64_t> number;
  for (std::int64_t i = 0; i < looked_at; ++i) {
    const auto tokens =
        o_.pack_captions ? tokenizer_->encode(data_->caption(drawn(i))).size() + 2 : std::size_t{1 << 20};  // (cut to the context)
    budget.caption_lengths.push_back(static_cast<std::int64_t>(tokens));
    budget.caption_ids.push_back(number.try_emplace(data_->caption_id(drawn(i)), static_cast<std::int64_t>(number.size())).first->second);
  }
  return budget;
}

void Training::plan_step_memory() {
  if (in_backward_ != nullptr) return;  // the planner's own step must not update
  if (o_.memory_limit == 0 && device_.is_cpu()) return;
  MemoryBudget budget = memory_budget();
  budget.limit = static_cast<std::size_t>(o_.memory_limit);
  if (o_.memory_limit > 0) plan_chunks(budget);
  if (device_.is_cpu()) return;
  const MemoryReport now = memory_report(device_);
  budget.limit = now.bytes + now.cached_bytes + card_memory(device_).free;
  prediction_ = predict_memory(*model_, step_options_, context_, *communicator_, budget);
  plan_.push_back(prediction_text(*prediction_, budget, device_));
  reset_peak_memory(device_);
}

// --memory-limit
void Training::plan_chunks(const MemoryBudget& budget) {
  const MemoryPlan plan = plan_memory(*model_, step_options_, context_, *communicator_, budget);
  std::string text = to_string(plan, budget);
  if (state_.planned) {
    text += fmt::format("; the run was begun with {}, which stays",
                        state_.max_chunk > 0 ? fmt::format("chunks of {} pairs", state_.max_chunk) : "the whole batch");
  } else {
    step_options_.max_chunk = plan.chunk;
  }
  context_.checkpoint_blocks = plan.checkpoint_blocks;  // (changes no bits)
  plan_.push_back(std::move(text));
}

// After the first step.
void Training::compare_memory() {
  if (memory_compared_) return;
  memory_compared_ = true;
  log_->line(prediction_.has_value() ? comparison_text(*prediction_, device_) : memory_seen(device_));
}

}  // namespace twinlens
