#include "twinlens/clip/trainer.h"

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <fmt/format.h>
#include <limits>
#include <unordered_set>

#include "clip/src/chunks.h"
#include "clip/src/json_text.h"
#include "clip/src/memory_plan.h"
#include "clip/src/run_report.h"
#include "clip/src/train_options.h"
#include "clip/src/training.h"

#include "twinlens/clip/evaluation.h"
#include "twinlens/clip/precision.h"
#include "twinlens/clip/pretrained.h"
#include "twinlens/clip/tokenizer_files.h"
#include "twinlens/core/file.h"
#include "twinlens/core/ops.h"
#include "twinlens/core/random.h"
#include "twinlens/kernels/error.h"
#include "twinlens/kernels/isa.h"
#include "twinlens/kernels/memory.h"
#include "twinlens/kernels/parallel.h"

namespace twinlens {
namespace {

namespace fs = std::filesystem;
using Json = nlohmann::ordered_json;

constexpr const char* kOfValidation = "validation: ";  // what the reason of a skipped sample begins with

// Whether a run has begun in its folder.
bool has_begun(const fs::path& folder) {
  std::error_code error;
  const bool there = fs::exists(folder / kParams, error);
  if (error)
    throw FileError("run folder cannot be looked at: " + error.message() + "; " + folder.string() + "; choose another --logs or --name");
  return there;
}

bool is_same_place(const fs::path& a, const fs::path& b) {
  std::error_code ignored;
  return fs::equivalent(a, b, ignored);
}

constexpr const char* kModel = "ViT-B-32";  // where none is named

// --resume latest without a checkpoint begins the run, as with open_clip: one that was ended before its first, or a job's first launch.
bool begins_anew(const fs::path& folder, const std::string& resume) {
  if (resume != "latest" || !list_checkpoints(folder / "checkpoints").empty()) return false;
  if (std::error_code ignored; fs::exists(folder / "model", ignored)) {
    throw FileError("resume: the run has come to its end once and its checkpoints are gone; " + (folder / "checkpoints").string() +
                    "; start a new one with --pretrained " + (folder / "model").string());
  }
  std::fprintf(stderr, "note: the run has no checkpoint yet and begins at step 0; %s\n", folder.string().c_str());
  return true;
}

// What a process that was killed while writing left behind.
void remove_half_written(const fs::path& folder) {
  std::error_code ignored;
  for (const char* place : {"", "model", "best", "tensorboard"}) {
    std::vector<fs::path> found;
    for (const auto& entry : fs::directory_iterator(folder / place, ignored)) {
      if (entry.path().filename().string().find(".tmp-") != std::string::npos) found.push_back(entry.path());
    }
    for (const fs::path& path : found) fs::remove(path, ignored);
  }
}

// A run has a folder of its own below the logs.
void check_name(const std::string& name) {
  const fs::path path = fs::path(name).lexically_normal();
  if (!path.empty() && path.is_relative() && path != "." && *path.begin() != "..") return;
  throw UsageError("'" + name + "' is no folder below the logs; --name; give a name");
}

bool all_captions_equal(const Dataset& data) {
  std::int64_t same = 1;
  while (same < data.size() && data.caption_id(same) == data.caption_id(0)) ++same;
  return same >= data.size();
}

}  // namespace

Training::Training(const TrainOptions& options, const std::atomic<bool>* stop) : o_(options), stop_(stop) {
  check_limits(o_);
  device_ = parse_device(o_.device);
  if (device_.is_cuda() && cuda_device_count() <= device_.index) throw DeviceError(cuda_unavailable_reason());
  check_card_options();
  set_staged_copies(o_.async_step);
  if (o_.threads > 0) set_thread_count(o_.threads);
  if (o_.model.empty()) o_.model = o_.pretrained.empty() ? kModel : o_.pretrained;
  check_run_is_named(o_);
  o_.name = run_name(o_);
  check_name(o_.name);
  folder_ = fs::path(o_.logs) / o_.name;
  const fs::path begun = o_.resume.empty() ? fs::path() : run_of(folder_, o_.resume);
  if (has_begun(folder_) && !is_same_place(begun, folder_)) {
    throw ConfigError("run '" + o_.name + "' exists already; " + folder_.string() +
                      "; choose another --name, or continue it with --resume latest");
  }
  tokenizer_ = nullptr;
  step_options_ = step_options(o_);
  if (!o_.report_to.empty() && o_.report_to != "tensorboard") {
    throw UsageError("'" + o_.report_to + "' is not there; --report-to; use tensorboard, or read metrics.jsonl");
  }
  if (std::error_code ignored; !o_.resume.empty() && fs::is_directory(folder_, ignored)) lock_ = std::make_unique<RunLock>(folder_);
  data_ = open_dataset(o_.train_data, dataset_options(o_));
  if (!o_.val_data.empty()) {
    validation_ = open_dataset(o_.val_data, validation_data_options(o_));
    check_save_best(o_, *validation_);
  }
  prepare_model();
  prepare_steps();
  make_folder(folder_.string());
  if (lock_ == nullptr) lock_ = std::make_unique<RunLock>(folder_);
  if (!o_.resume.empty()) {  // last, when nothing refuses the run any more: what is cut off does not come back
    remove_half_written(folder_);
    const bool goes_back = move_abandoned(folder_ / "checkpoints", state_.step);
    const bool compares = !o_.save_best.empty() && !state_.best_metric.empty();
    if (goes_back || !is_same_place(begun, folder_) || (compares && state_.best_metric != best_metric())) forget_best();
    RunLog::rewind_metrics(folder_, state_.step, state_.evaluation_due);
  }
  log_ = std::make_unique<RunLog>(folder_, o_.report_to == "tensorboard");
  live_report_ = std::make_unique<LiveReport>(folder_, o_.report_seconds);
}

void Training::prepare_model() {
  ModelConfig config;
  if (o_.model == o_.pretrained) {
    const ModelSource source = find_source(o_.pretrained, "--pretrained");
    config = source.config;
    if (!source.guess.empty()) std::fprintf(stderr, "note: %s\n", source.guess.c_str());
  } else {
    config = find_model_config(o_.model, "--model");
  }
  force_config(o_, config);
  if (o_.siglip && !config.init_logit_bias.has_value()) {  // as open_clip's --siglip
    config.init_logit_scale = std::log(10.0);
    config.init_logit_bias = -10.0;
  }
  model_ = std::make_unique<Clip>(config, o_.seed);
  if (!o_.pretrained.empty()) load_weights(*model_, o_.pretrained, "--pretrained");
  tokenizer_ = tokenizer_of(model_->config, o_.pretrained.empty() ? o_.model : o_.pretrained);
  tokenizer_files_ = read_tokenizer_files(o_.pretrained.empty() ? o_.model : o_.pretrained);
  if (auto* vit = std::get_if<VisionTransformer>(&model_->visual.body)) vit->pooled_last_block = o_.prune_last_block;
  model_->text.pooled_last_block = o_.prune_last_block;
  if (auto* resnet = std::get_if<ModifiedResNet>(&model_->visual.body)) {
    const int locked = layer_group(config, "visual.conv1.weight").groups - o_.lock_image_unlocked_groups;
    resnet->frozen_statistics = o_.lock_image && o_.lock_image_freeze_bn_stats ? locked : 0;
  }
  move_to(*model_, device_);
  const Collector all = collect(*model_);
  freeze(all, frozen_by(config, lock_options(o_)));
  context_.training = true;
  context_.compute = compute_of_precision(o_.precision, device_);
  context_.step = &block_;
  if (device_.is_cuda()) {
    device_block_ = step_block_on(block_, device_);
    context_.step = static_cast<const StepBlock*>(device_block_.raw());
  }
  context_.checkpoint_blocks = o_.grad_checkpointing;
  context_.recompute_cheap = o_.recompute_cheap;
  set_thrifty_memory(o_.update_in_backward);
  parameters_ = std::make_unique<FlatParameters>(all, context_.compute == Compute::bf16 && o_.weight_copies, !o_.update_in_backward);
  if (o_.image_layer_decay != 1.0 || o_.text_layer_decay != 1.0) {
    parameters_->set_lr_factors(layer_decay(config, o_.image_layer_decay, o_.text_layer_decay));
  }
  if (o_.ema > 0.0) ema_ = std::make_unique<Ema>(*parameters_, o_.ema);
}

// What a resumed run may do otherwise: be longer or shorter (its warmup stays what it was unless it is given), have no validation data.
void Training::take_changes() {
  const Json then = Json::parse(state_.settings);
  if (o_.warmup < 0) o_.warmup = then.at("warmup");
  if (then.at("epochs") != o_.epochs) {
    fmt::print(stderr, "note: --epochs was {} and is {} now; from here on the learning rate is that of a run of this length\n",
               then.at("epochs").dump(), o_.epochs);
  }
  state_.settings = json_text(resume_settings(o_, model_->config));
  if (validation_ == nullptr) state_.evaluation_due = false;
}

// Where a ResNet's last map is one pixel, batch norm has as many values as there are pairs at once, and needs two.
void Training::check_batch_norm() const {
  if (!model_->config.vision.is_resnet() || model_->config.vision.image_size >= 64) return;
  const std::int64_t pairs = o_.batch_size * o_.accum_freq;
  if (pairs < 2) throw ConfigError("batch norm needs two pairs at once; --batch-size; give 2 or more");
  const std::int64_t most = step_options_.max_chunk > 0 ? step_options_.max_chunk : pairs;
  if (Chunks(pairs, most).smallest < 2) {
    throw ConfigError(
        fmt::format("batch norm needs two pairs at once, and {} pairs in chunks of at most {} leave one alone; --max-chunk; give 3 or more",
                    pairs, most));
  }
}

void Training::prepare_steps() {
  check_batch_norm();
  LoaderOptions l = loader_options(o_, model_->config);
  steps_per_epoch_ = EpochOrder(*data_, order_options(l), 0).size() / l.batch_size;
  const bool goes_on = !o_.resume.empty() && !begins_anew(folder_, o_.resume);
  if (o_.warmup < 0 && !goes_on) o_.warmup = std::min<std::int64_t>(10'000, steps_per_epoch_ * o_.epochs / 20);
  adamw_ = adamw_options(o_, model_->config);
  o_.beta1 = adamw_.beta1;
  o_.beta2 = adamw_.beta2;
  o_.eps = adamw_.eps;
  o_.threads = thread_count();
  if (o_.update_in_backward) in_backward_ = std::make_unique<AdamWInBackward>(*parameters_, context_.step, adamw_, true);
  block_.seed = o_.seed;
  state_.seed = o_.seed;
  state_.instruction_set = device_.is_cuda() ? "cuda" : name_of(active_isa());
  state_.data_fingerprint = data_->fingerprint();
  state_.settings = json_text(resume_settings(o_, model_->config));
  writer_ = std::make_unique<CheckpointWriter>(folder_ / "checkpoints", o_.keep_last, o_.async_save, tokenizer_files_);
  if (!o_.resume.empty()) {
    if (goes_on) {
      state_ = resume_run(folder_, o_.resume, state_, tokenizer_files_, *model_, *parameters_, ema_.get());
      take_changes();
      saved_step_ = state_.step;
      writer_->set_written(state_.step);
      health_.go_on(state_.bad_in_a_row, state_.steps_left_out, state_.spikes);
    }
    skipped_before_ = read_skipped(folder_ / "skipped.tsv");
    skipped_logged_ = skipped_before_.size();
    for (const SkippedSample& s : skipped_before_) {
      if (s.reason.rfind(kOfValidation, 0) != 0) l.skipped_before.push_back(s.key);
    }
  }
  schedule_ = schedule_of(o_, steps_per_epoch_);
  total_steps_ = schedule_.total;
  // What was chosen first stays chosen, for the same bits.
  if (state_.planned && o_.max_chunk == 0) step_options_.max_chunk = state_.max_chunk;
  if (state_.planned && model_->config.vision.is_resnet() && step_options_.max_chunk != state_.max_chunk) {
    throw ConfigError(
        fmt::format("resume: batch norm has met chunks of {} (0: the whole batch) and would meet others; --max-chunk; give {} again",
                    state_.max_chunk, state_.max_chunk));
  }
  if (state_.planned && step_options_.max_chunk != state_.max_chunk) {
    std::fprintf(stderr, "note: the run had chunks of %lld (0: the whole batch); with --max-chunk %lld it goes on, but not bit for bit\n",
                 static_cast<long long>(state_.max_chunk), static_cast<long long>(step_options_.max_chunk));
  }
  if (in_backward_ != nullptr && step_options_.max_chunk > 0) {
    throw ConfigError("the run was begun in chunks, whose gradients are added up; --update-in-backward; leave it out");
  }
  if (o_.async_save) writer_->reserve(*model_, *parameters_, ema_.get());  // before planning: it is part of what is resident
  plan_step_memory();
  state_.max_chunk = step_options_.max_chunk;
  state_.planned = true;
  loader_ = std::make_unique<Loader>(data_, tokenizer_, l, state_.epoch, state_.batch);
  prepare_card();
  grace_ = std::make_unique<GraceSaver>(stop_, [this] { save_in_grace(); });
}

// Not for batch norm, whose statistics a step changes before it is complete, nor for updates in backward; nor on a card, where steps are
// short.
void Training::save_in_grace() {
  if (saved_step_ == state_.step || model_->config.vision.is_resnet() || in_backward_ != nullptr || device_.is_cuda()) return;
  if (!weights_are_finite()) return;
  writer_->save(state_, *model_, *parameters_, ema_.get());
  writer_->wait();
}

bool Training::weights_are_finite() const { return std::isfinite(norm2(parameters_->values).item()); }

void Training::save() {
  const std::lock_guard state(grace_->state());
  writer_->poll();
  settle_steps();
  if (saved_step_ == state_.step) return;
  if (!weights_are_finite()) {
    throw NumericError(
        fmt::format("the weights are not finite after step {}; they are not saved; lower --lr; the last good checkpoint is {}", state_.step,
                    last_good()));
  }
  writer_->save(state_, *model_, *parameters_, ema_.get());
  saved_step_ = state_.step;
  note_skipped();
}

// skipped.tsv: what this run has found so far, and what it had found before it was resumed. The first few go to the log.
void Training::note_skipped() {
  std::vector<SkippedSample> all = skipped_before_;
  std::unordered_set<std::string> known[2];  // of training, of validation
  for (const SkippedSample& before : skipped_before_) known[before.reason.starts_with(kOfValidation) ? 1 : 0].insert(before.key);
  for (const SkippedSample& s : loader_->skipped()) {
    if (known[0].count(one_line(s.key)) == 0) all.push_back(s);
  }
  for (const SkippedSample& s : validation_skipped_) {
    if (known[1].count(one_line(s.key)) == 0) all.push_back({s.key, kOfValidation + s.reason});
  }
  write_skipped(folder_ / "skipped.tsv", all);
  for (; skipped_logged_ < all.size() && skipped_logged_ < 10; ++skipped_logged_) {
    log_->line("skipped " + all[skipped_logged_].key + ": " + all[skipped_logged_].reason);
  }
}

void Training::finish() {
  const AveragedWeights averaged(ema_.get(), *parameters_);
  save_model(*model_, (folder_ / "model").string());
  write_tokenizer_files(tokenizer_files_, (folder_ / "model").string());
  write_run_report(folder_, o_, *model_, *tokenizer_, stopping() ? nullptr : validation_.get(), embed_options(), state_,
                   data_health_.table(loader_->skipped()));
}

TrainResult Training::run() {
  atomic_write((folder_ / kParams).string(), json_text(params_of(o_), 2) + "\n");
  log_->line(fmt::format("{}: {} parameters on {} ({}, {} threads), precision {}", o_.model, count_parameters(collect(*model_)),
                         to_string(device_), name_of(active_isa()), thread_count(), o_.precision));
  log_->line(fmt::format("{} pairs, {} steps an epoch of {} pairs, {} steps in all; equal captions: {}", data_->size(), steps_per_epoch_,
                         o_.batch_size * o_.accum_freq, total_steps_, o_.equal_captions));
  if (o_.pretrained.empty() && state_.step == 0 && !builtin_model_config(o_.model) && !weights_file(o_.model).empty()) {
    log_->line("note: --model gives the architecture only, training starts from random weights; give --pretrained " + o_.model +
               " to start from its weights");
  }
  if (!o_.pretrained.empty() && state_.step == 0 && o_.lr > 1e-4 && !o_.lock_image && !o_.lock_text) {
    log_->line(fmt::format("warning: --lr {} is one for random weights and makes those of --pretrained forget; 1e-5 is usual", o_.lr));
  }
  if (o_.batch_size * o_.accum_freq == 1 && !o_.siglip) {
    log_->line("warning: a batch of one pair has nothing to be told apart from: its loss is 0, and nothing is learned; raise --batch-size");
  } else if (o_.equal_captions == "positives" && o_.captions != "random" && !o_.siglip && all_captions_equal(*data_)) {
    log_->line(
        "warning: all captions are equal, and equal ones are not told apart: the loss is 0, and nothing is learned; give captions "
        "that differ, or see that the right column or --text-key is read");
  }
  if (o_.warmup > total_steps_) {
    log_->line(fmt::format("warning: --warmup {} is longer than the run of {} steps: the learning rate never gets to --lr", o_.warmup,
                           total_steps_));
  }
  const std::vector<SkippedSample>& skipped = data_->skipped();
  const auto is_bad = [](const SkippedSample& s) { return !s.by_rule; };
  if (const auto first = std::find_if(skipped.begin(), skipped.end(), is_bad); first != skipped.end()) {
    log_->line(fmt::format("warning: {} of the training data cannot be used, first: {}: {}; see skipped.tsv",
                           std::count_if(first, skipped.end(), is_bad), first->key, first->reason));
  }
  if (step_options_.max_chunk > 0 && step_options_.max_chunk < o_.batch_size * o_.accum_freq && model_->config.vision.is_resnet()) {
    log_->line(
        fmt::format("warning: batch norm takes its statistics from each chunk of at most {} pairs: the result is not that of whole batches",
                    step_options_.max_chunk));
  }
  for (const std::string& line : plan_) log_->line(line);
  TrainResult result;
  result.run_folder = folder_.string();
  try {
    run_steps(result);
  } catch (...) {
    note_skipped();
    throw;
  }
  if (graphs_ != nullptr) log_->line(graphs_->text());
  log_->line(memory_seen(device_));
  finish();
  result.steps = state_.step;
  result.last_loss = last_loss_;
  log_->line("model: " + (folder_ / "model").string() + "   report: " + (folder_ / "report.html").string());
  return result;
}

// Evaluates the step that is done. What is the best so far is kept. False when the run is to stop before it is done.
bool Training::evaluate_now() {
  settle_steps();
  Json metrics;
  try {
    metrics = evaluate();
  } catch (const Stopped&) {
    return false;
  } catch (const NumericError& e) {
    if (o_.on_nonfinite != "skip") throw;
    log_->line(std::string("warning: validation: ") + e.what());  // the next step leads back to a checkpoint
    const std::lock_guard changing(grace_->state());
    state_.evaluation_due = false;
    return true;
  }
  {
    const std::lock_guard changing(grace_->state());
    state_.evaluation_due = false;
    if (!is_best(metrics)) return true;
    state_.best_step = state_.step;
    state_.best_value = metrics[o_.save_best];
    state_.best_metric = best_metric();
    {
      const AveragedWeights averaged(ema_.get(), *parameters_);
      save_model(*model_, (folder_ / "best").string());
      write_tokenizer_files(tokenizer_files_, (folder_ / "best").string());
    }
    saved_step_ = -1;  // also when this step has been saved: the checkpoint says that it is the best
  }
  save();
  return true;
}

// Saved with what is due.
void Training::stop_here(TrainResult& result) {
  save();
  finish_writing();
  log_->line("stopped; continue with --resume latest --name " + o_.name + (o_.logs == TrainOptions().logs ? "" : " --logs " + o_.logs));
  result.stopped_early = true;
}

void Training::run_steps(TrainResult& result) {
  if (state_.evaluation_due && !evaluate_now()) return stop_here(result);
  if (prediction_.has_value()) reset_peak_memory(device_);
  while (state_.step < total_steps_) {
    step();
    compare_memory();
    const bool epoch_ended = state_.batch == 0, last = state_.step == total_steps_;
    const bool stops = stopping();
    {
      const std::lock_guard changing(grace_->state());
      state_.evaluation_due =
          validation_ != nullptr && o_.val_frequency > 0 && ((epoch_ended && state_.epoch % o_.val_frequency == 0) || last);
    }
    // Saving comes first: an evaluation may take longer than the time that a signal leaves.
    if ((epoch_ended && o_.save_frequency > 0 && state_.epoch % o_.save_frequency == 0) ||
        (o_.save_every_steps > 0 && state_.step % o_.save_every_steps == 0) || stops || last) {
      save();
    }
    if (stops && !last) return stop_here(result);
    if (state_.evaluation_due && !evaluate_now()) return stop_here(result);
  }
  settle_steps();
  finish_writing();
}

void Training::finish_writing() {
  const std::lock_guard state(grace_->state());
  writer_->wait();
}

TrainResult train(const TrainOptions& options, const std::atomic<bool>* stop) { return Training(options, stop).run(); }

}  // namespace twinlens
