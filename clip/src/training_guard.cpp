// The guard of a run: what becomes of a step whose loss or gradient is not finite, or whose gradient is a spike.

#include <cmath>
#include <fmt/format.h>

#include "clip/src/training.h"

#include "twinlens/core/ops.h"
#include "twinlens/kernels/error.h"

namespace twinlens {

// Whether the update may be made. With --on-nonfinite stop a step that is not finite ends the run, and a spike is only noted.
bool Training::guard(const SeenStep& step) {
  const bool skip = o_.on_nonfinite == "skip";
  if (!skip) check_finite(step);
  using Verdict = RunHealth::Verdict;
  // (After an update in backward the moments have the step in them.)
  const bool look_for_spikes = in_backward_ == nullptr && (skip || step.logged);
  const Verdict verdict = health_.judge(step.loss, step.norm, *parameters_, step.updates, adamw_.beta2, look_for_spikes);
  const bool left_out = skip && verdict != Verdict::good;
  health_.count(verdict, left_out);
  if (verdict == Verdict::spike) {
    log_->line(fmt::format("warning: step {}: the gradient norm {:.3g} is more than {:g} times its running size{}", step.number, step.norm,
                           o_.spike_factor, left_out ? "; the step is left out" : "; --on-nonfinite skip would leave the step out"));
  } else if (left_out) {
    log_->line(fmt::format("warning: step {}: {} is not finite; the step is left out ({} so far); samples {}", step.number,
                           std::isfinite(step.loss) ? "the gradient norm" : "the loss", health_.left_out(), keys_of(step.samples)));
  }
  if (left_out && (health_.bad_in_a_row() >= o_.max_bad_steps || !statistics_are_finite())) roll_back(health_.bad_in_a_row());
  if (!left_out) state_.last_update = step.number;
  state_.bad_in_a_row = health_.bad_in_a_row();
  state_.steps_left_out = health_.left_out();
  state_.spikes = health_.spikes();
  return !left_out;
}

// Batch norm's running statistics have seen the step, whatever becomes of it.
bool Training::statistics_are_finite() const {
  const Collector all = collect(*model_);
  for (const NamedBuffer& b : all.buffers) {
    if (count_nonfinite(*b.tensor).to_ints()[0] > 0) return false;
  }
  return true;
}

// Weights, moments and averages of the newest checkpoint that is older than the last update: what came of that update does not compute.
// The data goes on from where it is.
void Training::roll_back(std::int64_t bad_steps) {
  writer_->wait();  // which checkpoint is the newest must not depend on how fast it is written
  const std::string why = fmt::format("{} steps in a row were not finite or spikes", bad_steps);
  if (state_.rolled_back_at >= 0 && state_.step - state_.rolled_back_at <= 2 * o_.max_bad_steps) {
    throw NumericError(why + fmt::format(" at step {}, again after going back to a checkpoint; lower --lr; the last checkpoint is {}",
                                         state_.step + 1, last_good()));
  }
  const std::filesystem::path checkpoint = newest_before(list_checkpoints(folder_ / "checkpoints"), state_.last_update);
  if (checkpoint.empty()) {
    throw NumericError(why +
                       fmt::format(" at step {}, and there is no checkpoint to go back to, from before step {}; give --save-every-steps "
                                   "and --keep-last 2 or more, or lower --lr",
                                   state_.step + 1, state_.last_update));
  }
  const TrainState then = resume_run(folder_, checkpoint.string(), state_, tokenizer_files_, *model_, *parameters_, ema_.get());
  state_.left_out = state_.step - (then.step - then.left_out);
  state_.rolled_back_at = state_.step;
  health_.count(RunHealth::Verdict::good, false);
  log_->line(fmt::format("warning: {}: back to the weights of step {}; the data goes on", why, then.step));
}

}  // namespace twinlens
