// Steps on a card that the host does not wait for (--async-step), and batches that are copied ahead (--prefetch-batches).
//
// The host queues a step and reads what the step before it said. Clip factor and skip flag are decided on the card; once a step is not
// finite it and all that follow leave the weights as they are, so it does not matter that the host hears of it a step later. Whoever needs
// the state of a step (a log line, a checkpoint, an evaluation) waits for its record first.

#include <chrono>
#include <cstddef>
#include <utility>

#include "clip/src/training.h"

#include "twinlens/core/random.h"
#include "twinlens/kernels/error.h"
#include "twinlens/kernels/memory.h"

namespace twinlens {

void Training::check_card_options() const {
  const auto refuse = [](const std::string& what, const char* remedy) { throw UsageError(what + "; " + remedy); };
  if (device_.is_cpu() && o_.async_step) refuse("--async-step is for a card; --device cpu", "leave it out, or use --device cuda");
  if (device_.is_cpu() && o_.prefetch_batches > 0)
    refuse("--prefetch-batches is for a card; --device cpu", "leave it out, or use --device cuda");
  if (device_.is_cpu() && o_.device_transforms)
    refuse("--device-transforms is for a card; --device cpu", "leave it out, or use --device cuda");
  if (o_.device_transforms && o_.prefetch_batches == 0)
    refuse("--device-transforms works on batches that are copied ahead; --prefetch-batches 0", "give --prefetch-batches 2");
  check_graph_options();
  if (!o_.async_step) return;
  if (o_.precision == "amp" && o_.ema > 0.0)
    refuse("--async-step; --precision amp with --ema, which must know of steps that are left out", "use amp_bf16, or leave one out");
  if (o_.update_in_backward) refuse("--async-step; --update-in-backward, which leaves no gradients to judge", "leave one out");
  if (o_.on_nonfinite == "skip") refuse("--async-step; --on-nonfinite skip, which looks at each step before its update", "leave one out");
}

void Training::check_graph_options() const {
  if (!o_.cuda_graphs) return;
  const auto refuse = [](const std::string& what, const char* remedy) { throw UsageError("--cuda-graphs " + what + "; " + remedy); };
  if (device_.is_cpu()) refuse("is for a card; --device cpu", "leave it out, or use --device cuda");
  if (!o_.async_step || o_.prefetch_batches == 0)
    refuse("records steps that the host does not wait for; --async-step, --prefetch-batches",
           "give both, as --async-step --prefetch-batches 2");
  if (o_.max_chunk > 0 || o_.accum_freq > 1 || o_.memory_limit > 0 || step_options_.max_chunk > 0)
    refuse("records steps of one chunk; --max-chunk, --accum-freq, --memory-limit", "leave one out");
  if (!o_.stream_loss) refuse("cannot record a loss whose targets the host makes; --no-stream-loss", "leave one out");
}

void Training::prepare_card() {
  check_graph_options();  // (a resumed run may have chunks)
  if (o_.cuda_graphs) graphs_ = std::make_unique<GraphedSteps>(device_);
  if (o_.async_step) readback_ = std::make_unique<StepReadback>(device_);
  if (o_.async_step && context_.compute == Compute::f16) {
    card_scale_ = empty({2}, DType::f32, device_);
    static_assert(sizeof(LossScale) == 2 * sizeof(float) && offsetof(LossScale, scale) == 0);
    copy_bytes(current_stream(device_), card_scale_.raw(), device_, &state_.scaler, kCpu, sizeof(LossScale));
    block_.left_out = state_.left_out;
    copy_step_block(block_, device_block_);
    step_options_.card_loss_scale = card_scale_.slice(0, 0, 1).reshape({});
  }
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
  const PairBatch pairs{batch.pixels, batch.captions, batch.caption_ids, batch.samples};
  const std::lock_guard changing(grace_->state());
  writer_->poll();
  if (graphs_ != nullptr) {
    const StepInputs inputs = step_inputs(*model_, pairs, 0, pairs_of(pairs), step_options_, true);
    graphs_->queue(
        inputs, [&](const StepInputs& in) { queue_work(in, logged ? &figures : nullptr); }, logged);
  } else {
    parameters_->forget_gradients();
    queue_update(queue_forward_backward(*model_, pairs, step_options_, context_, *communicator_, logged ? &figures : nullptr));
  }
  if (ema_ != nullptr) ema_->update(*parameters_);
  readback_->queue();
  queued_.push_back({state_.step + 1, batch.samples, logged});
  settle_steps(logged ? 0 : 1);
  if (logged) health_.look([&](const auto& wanted) { return gradient_norm(wanted); }, figures, last_scale_);
  if (feeder_ != nullptr) feeder_->prefetch();
  end_step(batch);
  log_step(batch, last_loss_, last_norm_, std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count());
}

void Training::queue_work(const StepInputs& inputs, FeatureFigures* figures) {
  parameters_->forget_gradients();
  queue_update(queue_forward_backward(*model_, inputs, step_options_, context_, *communicator_, figures));
}

void Training::queue_update(const Tensor& loss) {
  judge_step(*parameters_, loss, device_block_, readback_->record(), o_.grad_clip_norm, card_scale_);
  adamw_step(*parameters_, device_block_, adamw_);
  model_->clamp_logit_scale();
}

void Training::settle_steps(std::int64_t left) {
  while (static_cast<std::int64_t>(queued_.size()) > left) {
    const QueuedStep step = std::move(queued_.front());
    queued_.pop_front();
    const StepRecord record = readback_->take();
    const auto loss = static_cast<double>(record.loss), norm = static_cast<double>(record.norm);
    // An overflow of scaled gradients is met with a smaller scale; the guard is for what remains.
    if (record.overflow == 0) guard({step.number, step.samples, loss, norm, step.logged, step.number - record.left_out});
    if (card_scale_.defined()) state_.scaler = record.next;
    state_.left_out = record.left_out;
    last_scale_ = static_cast<double>(record.loss_scale);
    last_loss_ = loss;
    last_norm_ = norm;
  }
}

}  // namespace twinlens
