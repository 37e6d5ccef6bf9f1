#include "twinlens/clip/trainer.h"

#include <algorithm>
#include <cmath>
#include <fmt/format.h>

#include "clip/src/memory_plan.h"
#include "clip/src/resume.h"
#include "clip/src/run_report.h"
#include "clip/src/training.h"

#include "twinlens/clip/evaluation.h"
#include "twinlens/clip/pretrained.h"
#include "twinlens/clip/tokenizer_files.h"
#include "twinlens/core/file.h"
#include "twinlens/core/ops.h"
#include "twinlens/kernels/error.h"
#include "twinlens/kernels/isa.h"
#include "twinlens/kernels/parallel.h"

namespace twinlens {
namespace {

namespace fs = std::filesystem;
using Json = nlohmann::ordered_json;

}  // namespace

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
  prepare_steps();
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
  tokenizer_ = tokenizer_of(model_->config, o_.pretrained.empty() ? o_.model : o_.pretrained);
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
}

void Training::prepare_steps() {
  const LoaderOptions l = loader_options(o_, model_->config);
  steps_per_epoch_ = static_cast<std::int64_t>(epoch_order(*data_, l.batch_size, o_.seed, 0, l.equal_captions_apart).size()) / l.batch_size;
  total_steps_ = std::max<std::int64_t>(1, steps_per_epoch_ * o_.epochs);
  if (o_.warmup < 0) o_.warmup = std::min<std::int64_t>(10'000, total_steps_ / 20);
  schedule_ = schedule_of(o_, steps_per_epoch_);
  adamw_ = adamw_options(o_, model_->config);
  step_options_ = step_options(o_);
  block_.seed = o_.seed;
  state_.seed = o_.seed;
  state_.instruction_set = name_of(active_isa());
  state_.data_fingerprint = data_->fingerprint();
  state_.settings = resume_settings(o_, model_->config).dump();
  if (!o_.resume.empty()) {
    state_ = resume_run(folder_, o_.resume, state_, *model_, *parameters_, ema_.get());
    saved_step_ = state_.step;
    skipped_before_ = read_skipped(folder_ / "skipped.tsv");
    skipped_logged_ = skipped_before_.size();
    RunLog::rewind_metrics(folder_, state_.step);
  }
  // What was chosen first stays chosen, for the same bits.
  if (state_.planned && o_.max_chunk == 0) step_options_.max_chunk = state_.max_chunk;
  if (o_.memory_limit > 0) plan_chunks();
  state_.max_chunk = step_options_.max_chunk;
  state_.planned = true;
  loader_ = std::make_unique<Loader>(data_, tokenizer_, l, state_.epoch, state_.batch);
}

// --memory-limit
void Training::plan_chunks() {
  MemoryBudget budget;
  budget.pairs = o_.batch_size * o_.accum_freq;
  budget.waiting = std::max(1, o_.workers) + 3;
  budget.limit = static_cast<std::size_t>(o_.memory_limit);
  const MemoryPlan plan = plan_memory(*model_, step_options_, context_, *communicator_, budget);
  plan_ = to_string(plan, budget);
  if (state_.planned) {
    plan_ += fmt::format("; the run was begun with {}, which stays",
                         state_.max_chunk > 0 ? fmt::format("chunks of {} pairs", state_.max_chunk) : "the whole batch");
  } else {
    step_options_.max_chunk = plan.chunk;
  }
  if (plan.chunk > 0 && model_->config.vision.is_resnet()) {
    plan_ += "; batch norm takes its statistics from each chunk, so the result is that of a smaller batch there";
  }
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
  copy_tokenizer_files(o_.pretrained.empty() ? o_.model : o_.pretrained, (folder_ / "model").string());
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
  if (!plan_.empty()) log_->line(plan_);
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

TrainResult train(const TrainOptions& options, const std::atomic<bool>* stop) { return Training(options, stop).run(); }

}  // namespace twinlens
