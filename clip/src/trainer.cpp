#include "twinlens/clip/trainer.h"

#include <algorithm>
#include <chrono>
#include <cmath>
#include <filesystem>
#include <fmt/format.h>
#include <fmt/ranges.h>
#include <memory>
#include <nlohmann/json.hpp>

#include "clip/src/checkpoint.h"
#include "clip/src/run_log.h"
#include "clip/src/run_report.h"

#include "twinlens/clip/evaluation.h"
#include "twinlens/clip/loader.h"
#include "twinlens/clip/pretrained.h"
#include "twinlens/clip/train_step.h"
#include "twinlens/core/file.h"
#include "twinlens/core/ops.h"
#include "twinlens/kernels/error.h"
#include "twinlens/kernels/isa.h"
#include "twinlens/kernels/parallel.h"
#include "twinlens/nn/schedule.h"

namespace twinlens {
namespace {

namespace fs = std::filesystem;
using Json = nlohmann::ordered_json;
using Clock = std::chrono::steady_clock;

double seconds_since(Clock::time_point start) { return std::chrono::duration<double>(Clock::now() - start).count(); }

Compute compute_of(const std::string& precision, Device device) {
  if (precision == "fp32") return Compute::fp32;
  if (precision == "tf32") return device.is_cuda() ? Compute::tf32 : Compute::fp32;
  if (precision == "amp_bf16" || precision == "bf16") return Compute::bf16;
  throw ConfigError("precision '" + precision + "' is not available on " + to_string(device) + "; --precision; use fp32 or amp_bf16");
}

AugmentOptions augment_options(const TrainOptions& o, const ModelConfig& config) {
  AugmentOptions a;
  a.scale = {o.aug_scale.at(0), o.aug_scale.at(1)};
  a.filter = eval_transform_of(config).filter;
  a.flip_probability = o.flip ? 0.5 : 0.0;
  if (o.color_jitter.size() == 4) {
    a.jitter_probability = o.color_jitter_prob;
    a.brightness = o.color_jitter[0];
    a.contrast = o.color_jitter[1];
    a.saturation = o.color_jitter[2];
    a.hue = o.color_jitter[3];
  }
  a.gray_probability = o.gray_scale_prob;
  if (o.affine.size() == 4) {
    a.rotate_degrees = o.affine[0];
    a.translate = o.affine[1];
    a.zoom = {o.affine[2], o.affine[3]};
  }
  return a;
}

DatasetOptions dataset_options(const TrainOptions& o) {
  DatasetOptions d;
  d.type = o.dataset_type;
  d.csv_separator = o.csv_separator;
  d.csv_img_key = o.csv_img_key;
  d.csv_caption_key = o.csv_caption_key;
  return d;
}

AdamWOptions adamw_options(const TrainOptions& o, const ModelConfig& config) {
  const bool vit = !config.vision.is_resnet();
  AdamWOptions a;
  a.beta1 = o.beta1 >= 0 ? o.beta1 : 0.9;
  a.beta2 = o.beta2 >= 0 ? o.beta2 : (vit ? 0.98 : 0.999);
  a.eps = o.eps >= 0 ? o.eps : (vit ? 1e-6 : 1e-8);
  a.weight_decay = o.wd;
  return a;
}

std::string run_name(const TrainOptions& o) {
  if (!o.name.empty()) return o.name;
  std::string model = fs::path(o.model).stem().string();
  return fmt::format("{}-{}-lr_{}-b_{}-{}", std::time(nullptr), model.empty() ? "model" : model, o.lr, o.batch_size, o.precision);
}

class Training {
 public:
  Training(const TrainOptions& options, const std::atomic<bool>* stop);
  TrainResult run();

 private:
  void prepare_model();
  void resume();
  void step();
  void check_finite(const LoadedBatch& batch, double loss, double norm) const;
  void log_step(const LoadedBatch& batch, double loss, double norm, double batch_seconds);
  void evaluate();
  void save();
  void note_skipped();
  std::string last_good() const;
  void run_steps(TrainResult& result);
  void finish();
  Json must_match() const;

  TrainOptions o_;
  const std::atomic<bool>* stop_;
  fs::path folder_;
  Device device_;
  std::unique_ptr<RunLog> log_;
  std::shared_ptr<const Dataset> data_, validation_;
  std::shared_ptr<const Tokenizer> tokenizer_;
  std::unique_ptr<Clip> model_;
  std::unique_ptr<FlatParameters> parameters_;
  std::unique_ptr<Ema> ema_;
  std::unique_ptr<Loader> loader_;
  std::unique_ptr<Communicator> communicator_ = solo_communicator();
  AdamWOptions adamw_;
  Schedule schedule_;
  StepBlock block_;
  Context context_;
  StepOptions step_options_;
  TrainState state_;
  std::int64_t steps_per_epoch_ = 0, total_steps_ = 0;
  std::int64_t saved_step_ = -1;
  std::vector<SkippedSample> skipped_before_;
  std::size_t skipped_logged_ = 0;
  double last_loss_ = 0.0;
  // since the last log line
  double wait_ = 0.0, busy_ = 0.0;
  std::int64_t truncated_ = 0, seen_ = 0;
};

Training::Training(const TrainOptions& options, const std::atomic<bool>* stop) : o_(options), stop_(stop) {
  device_ = parse_device(o_.device);
  if (device_.is_cuda() && cuda_device_count() <= device_.index) throw DeviceError(cuda_unavailable_reason());
  if (o_.threads > 0) set_thread_count(o_.threads);
  o_.name = run_name(o_);
  folder_ = fs::path(o_.logs) / o_.name;
  if (o_.resume.empty() && fs::exists(folder_ / "params.json")) {
    throw ConfigError("run '" + o_.name + "' exists already; " + folder_.string() +
                      "; choose another --name, or continue it with --resume latest");
  }
  tokenizer_ = nullptr;
  data_ = open_dataset(o_.train_data, dataset_options(o_));
  if (!o_.val_data.empty()) validation_ = open_dataset(o_.val_data, dataset_options(o_));
  prepare_model();
  std::error_code error;
  fs::create_directories(folder_, error);
  if (error) throw FileError("run folder cannot be made: " + error.message() + "; " + folder_.string() + "; choose another --logs");
  log_ = std::make_unique<RunLog>(folder_);
}

void Training::prepare_model() {
  const std::string source =
      !o_.pretrained.empty() && !builtin_model_config(o_.model) && o_.model == TrainOptions{}.model ? o_.pretrained : o_.model;
  model_ = std::make_unique<Clip>(find_model_config(source), o_.seed);
  if (!o_.pretrained.empty()) load_weights(*model_, o_.pretrained);
  tokenizer_ = tokenizer_of(model_->config);
  if (auto* vit = std::get_if<VisionTransformer>(&model_->visual.body)) vit->pooled_last_block = o_.prune_last_block;
  move_to(*model_, device_);
  const Collector all = collect(*model_);
  freeze(all, [&](const std::string& name) {
    const bool image = name.rfind("visual.", 0) == 0;
    return name != "logit_scale" && ((image && o_.lock_image) || (!image && o_.lock_text));
  });
  context_.training = true;
  context_.compute = compute_of(o_.precision, device_);
  context_.step = &block_;
  context_.checkpoint_blocks = o_.grad_checkpointing;
  parameters_ = std::make_unique<FlatParameters>(all, context_.compute == Compute::bf16);
  if (o_.ema > 0.0) ema_ = std::make_unique<Ema>(*parameters_, o_.ema);
  adamw_ = adamw_options(o_, model_->config);

  LoaderOptions l;
  l.batch_size = o_.batch_size * o_.accum_freq;
  l.image_size = model_->config.vision.image_size;
  l.augment = augment_options(o_, model_->config);
  l.context_length = model_->config.text.context_length;
  l.seed = o_.seed;
  l.workers = o_.workers;
  l.equal_captions_apart = o_.equal_captions == "apart";
  l.max_image_pixels = o_.max_image_pixels;
  l.max_skipped = o_.max_skipped;
  steps_per_epoch_ = static_cast<std::int64_t>(epoch_order(*data_, l.batch_size, o_.seed, 0, l.equal_captions_apart).size()) / l.batch_size;

  step_options_.equal_captions = o_.equal_captions == "negatives" ? EqualCaptions::negatives : EqualCaptions::positives;
  step_options_.max_chunk = o_.max_chunk > 0 ? o_.max_chunk : (o_.accum_freq > 1 ? o_.batch_size : 0);
  step_options_.encode_equal_once = o_.encode_equal_once;
  step_options_.pack_captions = o_.pack_captions;
  block_.seed = o_.seed;
  state_.seed = o_.seed;
  state_.instruction_set = name_of(active_isa());
  state_.data_fingerprint = data_->fingerprint();

  total_steps_ = std::max<std::int64_t>(1, steps_per_epoch_ * o_.epochs);
  schedule_.kind = parse_schedule(o_.lr_scheduler);
  schedule_.base = o_.lr;
  schedule_.total = total_steps_;
  if (o_.warmup < 0) o_.warmup = std::min<std::int64_t>(10'000, total_steps_ / 20);
  schedule_.warmup = o_.warmup;
  schedule_.cooldown = steps_per_epoch_ * o_.epochs_cooldown;
  schedule_.cooldown_end = o_.lr_cooldown_end;
  schedule_.cooldown_power = o_.lr_cooldown_power;
  state_.settings = must_match().dump();
  if (!o_.resume.empty()) resume();
  loader_ = std::make_unique<Loader>(data_, tokenizer_, l, state_.epoch, state_.batch);
}

// What must be as in the first run for a resumed one to continue it exactly.
Json Training::must_match() const {
  Json out{{"model", Json::parse(to_json(model_->config))},
           {"batch", o_.batch_size * o_.accum_freq},
           {"epochs", o_.epochs},
           {"lr", o_.lr},
           {"wd", o_.wd},
           {"beta1", adamw_.beta1},
           {"beta2", adamw_.beta2},
           {"eps", adamw_.eps},
           {"warmup", o_.warmup},
           {"lr_scheduler", o_.lr_scheduler},
           {"epochs_cooldown", o_.epochs_cooldown},
           {"lr_cooldown_end", o_.lr_cooldown_end},
           {"lr_cooldown_power", o_.lr_cooldown_power},
           {"lock_image", o_.lock_image},
           {"lock_text", o_.lock_text},
           {"precision", o_.precision},
           {"equal_captions", o_.equal_captions},
           {"aug_scale", o_.aug_scale},
           {"flip", o_.flip},
           {"color_jitter", o_.color_jitter},
           {"color_jitter_prob", o_.color_jitter_prob},
           {"gray_scale_prob", o_.gray_scale_prob},
           {"affine", o_.affine},
           {"grad_clip_norm", o_.grad_clip_norm},
           {"ema", o_.ema},
           {"seed", o_.seed}};
  return out;
}

void Training::resume() {
  std::vector<fs::path> candidates;
  if (o_.resume == "latest") {
    candidates = list_checkpoints(folder_ / "checkpoints");
    if (candidates.empty()) throw FileError("resume: no checkpoint; " + (folder_ / "checkpoints").string() + "; start without --resume");
  } else {
    candidates = {o_.resume};
  }
  const TrainState fresh = state_;
  std::string problem;
  for (const fs::path& candidate : candidates) {
    try {
      state_ = load_checkpoint(candidate, *model_, *parameters_, ema_.get());
    } catch (const FileError& e) {
      std::fprintf(stderr, "warning: %s; trying the checkpoint before\n", e.what());
      problem = e.what();
      continue;
    }
    const Json then = Json::parse(state_.settings), now = must_match();
    for (const auto& [key, value] : now.items()) {
      if (!then.contains(key) || then[key] != value) {
        throw ConfigError("resume: '" + key + "' was " + (then.contains(key) ? then[key].dump() : "unset") + " and is now " + value.dump() +
                          "; " + candidate.string() + "; give the flags of the first run");
      }
    }
    if (state_.data_fingerprint != fresh.data_fingerprint) {
      throw ConfigError("resume: the training data has changed; " + o_.train_data + "; restore it, or start a new run with --pretrained " +
                        (folder_ / "model").string());
    }
    if (state_.instruction_set != fresh.instruction_set) {
      std::fprintf(stderr, "warning: the run used %s and goes on with %s: results continue, but not bit for bit\n",
                   state_.instruction_set.c_str(), fresh.instruction_set.c_str());
      state_.instruction_set = fresh.instruction_set;
    }
    saved_step_ = state_.step;
    skipped_before_ = read_skipped(folder_ / "skipped.tsv");
    skipped_logged_ = skipped_before_.size();
    RunLog::rewind_metrics(folder_, state_.step);
    return;
  }
  throw FileError("resume: no usable checkpoint; " + problem + "; start a new run");
}

void Training::check_finite(const LoadedBatch& batch, double loss, double norm) const {
  if (std::isfinite(loss) && std::isfinite(norm)) return;
  std::string keys;
  for (std::size_t i = 0; i < batch.samples.size() && i < 8; ++i) keys += (i > 0 ? ", " : "") + data_->key(batch.samples[i]);
  throw NumericError(fmt::format(
      "{} is not finite at step {}; samples {}{}; lower --lr, use --precision fp32 or --grad-clip-norm 1; the last good checkpoint is {}",
      std::isfinite(loss) ? "the gradient norm" : "the loss", state_.step + 1, keys, batch.samples.size() > 8 ? ", ..." : "", last_good()));
}

std::string Training::last_good() const {
  return saved_step_ >= 0 ? (folder_ / "checkpoints" / ("step_" + std::to_string(saved_step_))).string() : "none yet";
}

void Training::step() {
  const auto start = Clock::now();
  const LoadedBatch batch = loader_->next();
  block_.step = static_cast<std::uint64_t>(state_.step);
  block_.learning_rate = static_cast<float>(schedule_(state_.step));
  parameters_->zero_gradients();
  const double loss = forward_backward(*model_, {batch.pixels, batch.captions, batch.caption_ids}, step_options_, context_, *communicator_);
  const double norm = parameters_->gradient_norm();
  check_finite(batch, loss, norm);
  block_.clip_factor = clip_factor(norm, o_.grad_clip_norm);
  adamw_step(*parameters_, block_, adamw_);
  model_->clamp_logit_scale();
  if (ema_ != nullptr) ema_->update(*parameters_);
  const auto pairs = static_cast<std::int64_t>(batch.samples.size());
  state_.step += 1;
  state_.samples += pairs;
  state_.epoch = batch.epoch + (batch.last ? 1 : 0);
  state_.batch = batch.last ? 0 : batch.index + 1;
  last_loss_ = loss;
  log_step(batch, loss, norm, seconds_since(start));
}

void Training::log_step(const LoadedBatch& batch, double loss, double norm, double batch_seconds) {
  wait_ += batch.wait_seconds;
  busy_ += batch_seconds;
  truncated_ += batch.truncated;
  seen_ += static_cast<std::int64_t>(batch.samples.size());
  const double rate = static_cast<double>(seen_) / busy_;
  log_->progress(state_.step, total_steps_, fmt::format("loss {:.3f}  {:.0f} pairs/s", loss, rate));
  if (state_.step % o_.log_every_n_steps != 0 && state_.step != total_steps_) return;
  const auto n = static_cast<double>(batch.samples.size());
  const double scale = model_->logit_scale_value(), wait_share = wait_ / busy_;
  log_->line(fmt::format(
      "step {}/{} epoch {:.2f}  loss {:.4f} (ln N {:.3f})  logit scale {:.2f}{}  lr {:.2e}  grad norm {:.3f}  {:.0f} pairs/s  data wait "
      "{:.0f} %",
      state_.step, total_steps_, static_cast<double>(state_.step) / static_cast<double>(steps_per_epoch_), loss, std::log(n), scale,
      scale >= 99.99 ? " (at its limit)" : "", static_cast<double>(block_.learning_rate), norm, rate, 100.0 * wait_share));
  if (wait_share > 0.2) log_->line("warning: the model waits for data; raise --workers, or store smaller pictures");
  log_->metrics({{"step", state_.step},
                 {"epoch", static_cast<double>(state_.step) / static_cast<double>(steps_per_epoch_)},
                 {"samples", state_.samples},
                 {"loss", loss},
                 {"lr", static_cast<double>(block_.learning_rate)},
                 {"logit_scale", scale},
                 {"samples_per_second", rate},
                 {"data_time", batch.wait_seconds},
                 {"batch_time", batch_seconds},
                 {"grad_norm", norm},
                 {"ln_n", std::log(n)},
                 {"truncated_share", static_cast<double>(truncated_) / static_cast<double>(seen_)}});
  wait_ = busy_ = 0.0;
  truncated_ = seen_ = 0;
}

void Training::evaluate() {
  if (validation_ == nullptr) return;
  if (ema_ != nullptr) ema_->swap(*parameters_);
  EmbedOptions options;
  options.context.compute = context_.compute;
  options.batch_size = static_cast<int>(o_.batch_size);
  options.max_image_pixels = o_.max_image_pixels;
  const EmbeddedDataset embedded = embed_dataset(*model_, *tokenizer_, *validation_, options);
  const Retrieval r = retrieval_metrics(embedded.images, embedded.texts, embedded.caption_of);
  if (ema_ != nullptr) ema_->swap(*parameters_);
  Json line{{"step", state_.step},
            {"epoch", state_.epoch},
            {"samples", state_.samples},
            {"clip_val_loss", validation_loss(embedded, model_->logit_scale.value)}};
  for (const auto& [name, value] : retrieval_report(r)) line[name] = value;
  log_->metrics(line);
  log_->line(fmt::format("validation: loss {:.4f}  image to text R@1 {:.1f} %  R@5 {:.1f} %  text to image R@1 {:.1f} %  (chance {:.2f} %)",
                         line["clip_val_loss"].get<double>(), 100 * r.image_to_text.r1, 100 * r.image_to_text.r5, 100 * r.text_to_image.r1,
                         100.0 / static_cast<double>(std::max<std::int64_t>(1, r.texts))));
}

void Training::save() {
  if (saved_step_ == state_.step) return;
  if (!std::isfinite(norm2(parameters_->values).item())) {
    throw NumericError(
        fmt::format("the weights are not finite after step {}; they are not saved; lower --lr; the last good checkpoint is {}", state_.step,
                    last_good()));
  }
  save_checkpoint(folder_ / "checkpoints", state_, *model_, *parameters_, ema_.get(), o_.keep_last);
  saved_step_ = state_.step;
  note_skipped();
}

// skipped.tsv: what this run has found so far, and what it had found before it was resumed. The first few go to the log.
void Training::note_skipped() {
  std::vector<SkippedSample> all = skipped_before_;
  for (const SkippedSample& s : loader_->skipped()) {
    const auto same = [&](const SkippedSample& before) { return before.key == s.key; };
    if (std::none_of(skipped_before_.begin(), skipped_before_.end(), same)) all.push_back(s);
  }
  write_skipped(folder_ / "skipped.tsv", all);
  for (; skipped_logged_ < all.size() && skipped_logged_ < 10; ++skipped_logged_) {
    log_->line("skipped " + all[skipped_logged_].key + ": " + all[skipped_logged_].reason);
  }
}

void Training::finish() {
  if (ema_ != nullptr) ema_->swap(*parameters_);
  save_model(*model_, (folder_ / "model").string());
  write_run_report(folder_, o_, *model_, *tokenizer_, validation_.get(), state_);
  if (ema_ != nullptr) ema_->swap(*parameters_);
}

TrainResult Training::run() {
  Json params;
  for (const auto& [name, value] : describe(o_)) params[name] = value;
  atomic_write((folder_ / "params.json").string(), params.dump(2) + "\n");
  log_->line(fmt::format("{}: {} parameters on {} ({}, {} threads), precision {}", o_.model, count_parameters(collect(*model_)),
                         to_string(device_), name_of(active_isa()), thread_count(), o_.precision));
  log_->line(fmt::format("{} pairs, {} steps an epoch of {} pairs, {} steps in all; equal captions: {}", data_->size(), steps_per_epoch_,
                         o_.batch_size * o_.accum_freq, total_steps_, o_.equal_captions));
  TrainResult result;
  result.run_folder = folder_.string();
  try {
    run_steps(result);
  } catch (...) {
    note_skipped();
    throw;
  }
  finish();
  result.steps = state_.step;
  result.last_loss = last_loss_;
  log_->line("model: " + (folder_ / "model").string() + "   report: " + (folder_ / "report.html").string());
  return result;
}

void Training::run_steps(TrainResult& result) {
  while (state_.step < total_steps_) {
    step();
    const bool epoch_ended = state_.batch == 0, last = state_.step == total_steps_;
    const bool stopping = stop_ != nullptr && stop_->load();
    if (o_.val_frequency > 0 && ((epoch_ended && state_.epoch % o_.val_frequency == 0) || last)) evaluate();
    if ((epoch_ended && o_.save_frequency > 0 && state_.epoch % o_.save_frequency == 0) ||
        (o_.save_every_steps > 0 && state_.step % o_.save_every_steps == 0) || stopping || last) {
      save();
    }
    if (stopping && !last) {
      log_->line("stopped; continue with --resume latest");
      result.stopped_early = true;
      return;
    }
  }
}

}  // namespace

TrainResult train(const TrainOptions& options, const std::atomic<bool>* stop) { return Training(options, stop).run(); }

}  // namespace twinlens
