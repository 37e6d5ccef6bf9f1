// Steps on a card that the host does not wait for (--async-step), and batches that are copied ahead (--prefetch-batches).
//
// The host queues a step and reads what the step before it said. Clip factor and skip flag are decided on the card; once a step is not
// finite it and all that follow leave the weights as they are, so it does not matter that the host hears of it a step later. Whoever needs
// the state of a step (a log line, a checkpoint, an evaluation) waits for its record first.

#include <chrono>
#include <utility>

#include "clip/src/training.h"

#include "twinlens/core/random.h"
#include "twinlens/kernels/error.h"

namespace twinlens {

void Training::check_card_options() const {
  const auto refuse = [](const std::string& what, const char* remedy) { throw ConfigError(what + "; " + remedy); };
  if (device_.is_cpu() && o_.async_step) refuse("--async-step is for a card; --device cpu", "leave it out, or use --device cuda");
  if (device_.is_cpu() && o_.prefetch_batches > 0)
    refuse("--prefetch-batches is for a card; --device cpu", "leave it out, or use --device cuda");
  if (device_.is_cpu() && o_.device_transforms)
    refuse("--device-transforms is for a card; --device cpu", "leave it out, or use --device cuda");
  if (o_.device_transforms && o_.prefetch_batches == 0)
    refuse("--device-transforms works on batches that are copied ahead; --prefetch-batches 0", "give --prefetch-batches 2");
  if (!o_.async_step) return;
  if (o_.precision == "amp")
    refuse("--async-step; --precision amp, whose loss scale follows from each step", "use amp_bf16, or leave one out");
  if (o_.update_in_backward) refuse("--async-step; --update-in-backward, which leaves no gradients to judge", "leave one out");
  if (o_.on_nonfinite == "skip") refuse("--async-step; --on-nonfinite skip, which looks at each step before its update", "leave one out");
}

void Training::prepare_card() {
  if (o_.async_step) readback_ = std::make_unique<StepReadback>(device_);
  if (o_.prefetch_batches == 0) return;
  const std::int64_t s = model_->config.vision.image_size;
  feeder_ = std::make_unique<CardFeeder>(*loader_, Shape{o_.batch_size * o_.accum_freq, s, s, 3}, device_, o_.prefetch_batches);
}

LoadedBatch Training::next_batch() { return feeder_ != nullptr ? feeder_->next() : loader_->next(); }

void Training::queue_step() {
  const auto start = std::chrono::steady_clock::now();
  const LoadedBatch batch = next_batch();
  begin_step();
  const bool logged = is_logged(state_.step + 1);
  FeatureFigures figures;
  const Tensor loss = queue_forward_backward(*model_, {batch.pixels, batch.captions, batch.caption_ids, batch.samples}, step_options_,
                                             context_, *communicator_, logged ? &figures : nullptr);
  judge_step(*parameters_, loss, device_block_, readback_->record(), o_.grad_clip_norm);
  const std::lock_guard changing(grace_->state());
  writer_->poll();
  adamw_step(*parameters_, device_block_, adamw_);
  model_->clamp_logit_scale();
  if (ema_ != nullptr) ema_->update(*parameters_);
  readback_->queue();
  queued_.push_back({state_.step + 1, batch.samples, logged});
  settle_steps(logged ? 0 : 1);
  if (logged) health_.look([&](const auto& wanted) { return gradient_norm(wanted); }, figures);
  if (feeder_ != nullptr) feeder_->prefetch();
  end_step(batch);
  log_step(batch, last_loss_, last_norm_, std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count());
}

void Training::settle_steps(std::int64_t left) {
  while (static_cast<std::int64_t>(queued_.size()) > left) {
    const QueuedStep step = std::move(queued_.front());
    queued_.pop_front();
    const StepRecord record = readback_->take();
    const auto loss = static_cast<double>(record.loss), norm = static_cast<double>(record.norm);
    guard({step.number, step.samples, loss, norm, step.logged, step.number});
    last_loss_ = loss;
    last_norm_ = norm;
  }
}

}  // namespace twinlens
