// One step of a run, its log, and evaluation.

#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstddef>
#include <fmt/format.h>
#include <thread>

#include "clip/src/run_report.h"
#include "clip/src/training.h"

#include "twinlens/clip/evaluation.h"
#include "twinlens/kernels/error.h"
#include "twinlens/kernels/memory.h"

namespace twinlens {
namespace {

using Json = nlohmann::ordered_json;
using Clock = std::chrono::steady_clock;

double seconds_since(Clock::time_point start) { return std::chrono::duration<double>(Clock::now() - start).count(); }

}  // namespace

std::string Training::keys_of(const std::vector<std::int64_t>& samples) const {
  std::string keys;
  for (std::size_t i = 0; i < samples.size() && i < 8; ++i) keys += (i > 0 ? ", " : "") + data_->key(samples[i]);
  return keys + (samples.size() > 8 ? ", ..." : "");
}

void Training::check_finite(const SeenStep& step) const {
  if (std::isfinite(step.loss) && std::isfinite(step.norm)) return;
  throw NumericError(fmt::format(
      "{} is not finite at step {}; samples {}; lower --lr, use --precision fp32 or --grad-clip-norm 1; the last good checkpoint is {}",
      std::isfinite(step.loss) ? "the gradient norm" : "the loss", step.number, keys_of(step.samples), last_good()));
}

double Training::gradient_norm(const std::function<bool(const std::string&)>& wanted) const {
  return in_backward_ != nullptr ? in_backward_->gradient_norm(wanted) : parameters_->gradient_norm(wanted);
}

std::string Training::last_good() const {
  const std::int64_t step = writer_->written();
  return step >= 0 ? (folder_ / "checkpoints" / ("step_" + std::to_string(step))).string() : "none yet";
}

void Training::begin_step() {
  block_.step = step_options_.step = static_cast<std::uint64_t>(state_.step);
  block_.learning_rate = static_cast<float>(schedule_(state_.step));
  if (context_.compute == Compute::f16) step_options_.loss_scale = state_.scaler.scale;
  block_.loss_scale = static_cast<float>(step_options_.loss_scale);
  block_.left_out = state_.left_out;
  if (device_block_.defined()) copy_step_block(block_, device_block_, card_scale_.defined());
  if (card_scale_.defined()) {
    char* block = static_cast<char*>(device_block_.raw());
    copy_bytes(current_stream(device_), block + offsetof(StepBlock, loss_scale), device_, card_scale_.raw(), device_, sizeof(float));
  }
}

void Training::end_step(const LoadedBatch& batch) {
  state_.step += 1;
  state_.samples += static_cast<std::int64_t>(batch.samples.size());
  state_.epoch = batch.epoch + (batch.last ? 1 : 0);
  state_.batch = batch.last ? 0 : batch.index + 1;
}

void Training::step() {
  if (readback_ != nullptr) return queue_step();
  const auto start = Clock::now();
  const LoadedBatch batch = next_batch();
  begin_step();
  parameters_->forget_gradients();
  const bool scales = context_.compute == Compute::f16;
  const bool logged = is_logged(state_.step + 1);
  FeatureFigures figures;
  const double loss = forward_backward(*model_, {batch.pixels, batch.captions, batch.caption_ids, batch.samples}, step_options_, context_,
                                       *communicator_, logged ? &figures : nullptr);
  const double norm = (in_backward_ != nullptr ? in_backward_->gradient_norm() : parameters_->gradient_norm()) / step_options_.loss_scale;
  // An overflow of scaled gradients is met with a smaller scale; the guard is for what remains.
  const bool overflow = scales && std::isfinite(loss) && !std::isfinite(norm) && state_.scaler.may_halve();
  const std::lock_guard changing(grace_->state());
  writer_->poll();
  block_.skip = overflow || !guard({state_.step + 1, batch.samples, loss, norm, logged, state_.step - state_.left_out}) ? 1 : 0;
  if (scales) state_.scaler.count(!overflow);
  if (block_.skip != 0) state_.left_out += 1;
  if (logged) health_.look([&](const auto& wanted) { return gradient_norm(wanted); }, figures, step_options_.loss_scale);
  block_.clip_factor = overflow ? 1.0F : clip_factor(norm, o_.grad_clip_norm);
  if (in_backward_ != nullptr) {
    in_backward_->finish_step();
  } else if (device_block_.defined()) {
    copy_step_block(block_, device_block_);
    adamw_step(*parameters_, device_block_, adamw_);
  } else {
    adamw_step(*parameters_, block_, adamw_);
  }
  model_->clamp_logit_scale();
  if (ema_ != nullptr && block_.skip == 0) ema_->update(*parameters_);
  if (feeder_ != nullptr) feeder_->prefetch();
  end_step(batch);
  if (block_.skip == 0) last_loss_ = loss;
  log_step(batch, loss, norm, seconds_since(start));
}

void Training::log_step(const LoadedBatch& batch, double loss, double norm, double batch_seconds) {
  data_health_.add(batch, batch_seconds);
  const double rate = data_health_.pairs_per_second();
  log_->progress(state_.step, total_steps_, fmt::format("loss {:.3f}  {:.0f} pairs/s", loss, rate));
  if (!is_logged(state_.step)) return;
  const auto n = static_cast<double>(batch.samples.size());
  const double scale = model_->logit_scale_value(), wait_share = data_health_.wait_share();
  const double epoch = static_cast<double>(batch.epoch) + static_cast<double>(batch.index + 1) / static_cast<double>(batch.batches);
  log_->line(fmt::format(
      "step {}/{} epoch {:.2f}  loss {:.4f} (ln N {:.3f})  logit scale {:.2f}{}  lr {:.2e}  grad norm {:.3f}  {:.0f} pairs/s  data wait "
      "{:.0f} %{}{}",
      state_.step, total_steps_, epoch, loss, std::log(n), scale, scale >= 99.99 ? " (at its limit)" : "",
      static_cast<double>(block_.learning_rate), norm, rate, 100.0 * wait_share, health_.text(),
      log_->left().empty() ? "" : "  " + log_->left()));
  for (const std::string& hint : health_.hints(state_.step, loss, std::log(n), o_.warmup, static_cast<double>(block_.learning_rate))) {
    log_->line(hint);
  }
  if (const std::string warning = data_health_.warning(o_.workers, static_cast<int>(std::thread::hardware_concurrency())); !warning.empty())
    log_->line(warning);
  Json line{{"step", state_.step},
            {"epoch", epoch},
            {"samples", state_.samples},
            {"loss", loss},
            {"lr", static_cast<double>(block_.learning_rate)},
            {"logit_scale", scale},
            {"samples_per_second", rate},
            {"data_time", batch.wait_seconds},
            {"batch_time", batch_seconds},
            {"grad_norm", norm},
            {"ln_n", std::log(n)}};
  data_health_.fields(line, static_cast<std::int64_t>(loader_->skipped().size()),
                      data_->size() + static_cast<std::int64_t>(data_->skipped().size()));
  health_.fields(line, scale);
  log_->metrics(line);
  data_health_.restart();
  live_report_->update(o_, state_, total_steps_, data_health_, loader_->skipped());
}

EmbedOptions Training::embed_options() const {
  EmbedOptions options;
  options.context.compute = context_.compute;
  options.batch_size = static_cast<int>(step_options_.max_chunk > 0 ? std::min(o_.batch_size, step_options_.max_chunk) : o_.batch_size);
  options.max_image_pixels = o_.max_image_pixels;
  options.fast_decode = o_.fast_decode;
  return options;
}

Json Training::evaluate() {
  std::unique_lock changing(grace_->state(), std::defer_lock);
  if (ema_ != nullptr) changing.lock();
  const AveragedWeights averaged(ema_.get(), *parameters_);
  EmbedOptions options = embed_options();
  options.stop = stop_;
  const EmbeddedDataset embedded = embed_dataset(*model_, *tokenizer_, *validation_, options);
  if (validation_skipped_.empty() && !embedded.skipped.empty()) {
    validation_skipped_ = embedded.skipped;
    log_->line(fmt::format("warning: {} of the validation data cannot be used, first: {}: {}; see skipped.tsv", embedded.skipped.size(),
                           embedded.skipped.front().key, embedded.skipped.front().reason));
    note_skipped();
  }
  const Retrieval r = retrieval_metrics(embedded.images, embedded.texts, embedded.texts_of);
  Json line{{"step", state_.step},
            {"epoch", state_.epoch},
            {"samples", state_.samples},
            {"clip_val_loss", validation_loss(embedded, model_->logit_scale.value)}};
  for (const auto& [name, value] : retrieval_report(r)) line[name] = value;
  line["num_images"] = r.images;
  line["num_texts"] = r.texts;
  if (validation_->has_classes()) {  // a caption is a class
    line["zeroshot_top1"] = r.image_to_text.r1;
    line["zeroshot_top5"] = r.image_to_text.r5;
  }
  log_->metrics(line);
  log_->line(fmt::format("validation: loss {:.4f}  image to text R@1 {:.1f} %  R@5 {:.1f} %  text to image R@1 {:.1f} %  (chance {:.2f} %)",
                         line["clip_val_loss"].get<double>(), 100 * r.image_to_text.r1, 100 * r.image_to_text.r5, 100 * r.text_to_image.r1,
                         100.0 / static_cast<double>(std::max<std::int64_t>(1, r.texts))));
  return line;
}

bool Training::is_best(const Json& metrics) const {
  if (o_.save_best.empty()) return false;
  const double value = metrics[o_.save_best];
  const bool lower = o_.save_best.find("loss") != std::string::npos || o_.save_best.find("rank") != std::string::npos;
  return std::isfinite(value) && (state_.best_step < 0 || (lower ? value < state_.best_value : value > state_.best_value));
}

std::string Training::best_metric() const {
  return o_.save_best.empty() ? std::string() : o_.save_best + " of " + validation_->fingerprint();
}

// The best so far was by another measure, in another run, or of steps that are left behind.
void Training::forget_best() {
  if (state_.best_step >= 0 && !o_.save_best.empty())
    fmt::print(stderr,
               "note: --save-best begins anew; step {}, the best so far, was it by another measure or before steps that are left behind\n",
               state_.best_step);
  state_.best_step = -1;
}

}  // namespace twinlens
