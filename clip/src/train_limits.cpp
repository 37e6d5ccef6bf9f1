#include <cmath>
#include <fmt/format.h>
#include <vector>

#include "clip/src/train_settings.h"

#include "twinlens/clip/evaluation.h"
#include "twinlens/clip/metrics.h"
#include "twinlens/kernels/error.h"

namespace twinlens {
namespace {

constexpr double kMostThreads = 1024;
constexpr double kMany = 1e9;  // products of two such counts are still counts

void require(bool fits, const char* flag, double value, const std::string& rule) {
  if (!fits) throw UsageError(fmt::format("{:.15g} is out of range; --{}; give a number {}", value, flag, rule));
}

template <class Number>
void at_least(double low, const char* flag, Number number) {
  const auto value = static_cast<double>(number);
  require(std::isfinite(value) && value >= low, flag, value, fmt::format("that is at least {:g}", low));
}

template <class Number>
void within(double low, double high, const char* flag, Number number) {
  const auto value = static_cast<double>(number);
  require(value >= low && value <= high, flag, value, fmt::format("from {:g} to {:g}", low, high));
}

void below_one(const char* flag, double value) { require(value >= 0.0 && value < 1.0, flag, value, "from 0 to below 1"); }

void count_of(const char* flag, const std::vector<double>& values, std::size_t count, bool optional) {
  if (values.size() == count || (optional && values.empty())) return;
  throw UsageError(fmt::format("{} numbers; --{}; give {}", values.size(), flag, count));
}

void check_augmentation(const TrainOptions& o) {
  count_of("aug-scale", o.aug_scale, 2, false);
  count_of("color-jitter", o.color_jitter, 4, true);
  count_of("sharpness", o.sharpness, 2, true);
  count_of("affine", o.affine, 4, true);
  const auto range = [](const char* flag, double low, double high) {
    if (!(low <= high)) throw UsageError(fmt::format("{:g} to {:g} is no range; --{}; give the lower end first", low, high, flag));
  };
  for (const double share : o.aug_scale) require(share > 0.0 && share <= 1.0, "aug-scale", share, "above 0 and at most 1");
  range("aug-scale", o.aug_scale[0], o.aug_scale[1]);
  for (std::size_t i = 0; i < o.color_jitter.size(); ++i) {
    if (i < 3) at_least(0, "color-jitter", o.color_jitter[i]);
    if (i == 3) within(0, 0.5, "color-jitter", o.color_jitter[i]);
  }
  within(0, 1, "color-jitter-prob", o.color_jitter_prob);
  within(0, 1, "gray-scale-prob", o.gray_scale_prob);
  within(0, 1, "invert-prob", o.invert_prob);
  within(0, 1, "sharpness-prob", o.sharpness_prob);
  at_least(0, "gamma-jitter", o.gamma_jitter);
  for (const double factor : o.sharpness) at_least(0, "sharpness", factor);
  if (!o.sharpness.empty()) range("sharpness", o.sharpness[0], o.sharpness[1]);
  if (o.affine.empty()) return;
  at_least(0, "affine", o.affine[0]);
  within(0, 1, "affine", o.affine[1]);
  for (const std::size_t zoom : {2, 3}) {
    require(std::isfinite(o.affine[zoom]) && o.affine[zoom] > 0.0, "affine", o.affine[zoom], "above 0 for the zoom");
  }
  range("affine", o.affine[2], o.affine[3]);
}

void check_optimization(const TrainOptions& o) {
  within(1, kMany, "batch-size", o.batch_size);
  within(1, kMany, "accum-freq", o.accum_freq);
  within(1, kMany, "epochs", o.epochs);
  at_least(0, "max-chunk", o.max_chunk);
  at_least(0, "lr", o.lr);
  at_least(0, "wd", o.wd);
  // Below 0 these are the model's.
  if (!(o.beta1 < 0.0)) below_one("beta1", o.beta1);
  if (!(o.beta2 < 0.0)) below_one("beta2", o.beta2);
  if (!(o.eps < 0.0)) require(std::isfinite(o.eps) && o.eps > 0.0, "eps", o.eps, "above 0");
  within(0, static_cast<double>(o.epochs), "epochs-cooldown", o.epochs_cooldown);
  if (o.lr_scheduler == "const-cooldown" && o.epochs_cooldown == 0)
    throw UsageError("const-cooldown has no epochs to cool down in; --epochs-cooldown; give the number of the last epochs that do");
  at_least(0, "lr-cooldown-end", o.lr_cooldown_end);
  require(std::isfinite(o.lr_cooldown_power), "lr-cooldown-power", o.lr_cooldown_power, "that is finite");
  within(0, 1, "label-smoothing", o.label_smoothing);
  at_least(0, "grad-clip-norm", o.grad_clip_norm);
  below_one("ema", o.ema);
  at_least(0, "spike-factor", o.spike_factor);
  at_least(1, "max-bad-steps", o.max_bad_steps);
  for (const double share : o.json_text_key_probs) at_least(0, "json-text-key-probs", share);
}

void check_model(const TrainOptions& o) {
  at_least(0, "force-image-size", o.force_image_size);
  at_least(0, "force-context-length", o.force_context_length);
  require(!std::isnan(o.force_patch_dropout), "force-patch-dropout", o.force_patch_dropout, "from 0 to below 1");  // ModelConfig says more
  at_least(0, "lock-image-unlocked-groups", o.lock_image_unlocked_groups);
  at_least(0, "lock-text-unlocked-layers", o.lock_text_unlocked_layers);
  within(1e-6, 1, "image-layer-decay", o.image_layer_decay);
  within(1e-6, 1, "text-layer-decay", o.text_layer_decay);
}

void check_run(const TrainOptions& o) {
  within(0, kMostThreads, "workers", o.workers);
  within(0, kMostThreads, "threads", o.threads);
  at_least(0, "shuffle-buffer", o.shuffle_buffer);
  within(0, 1, "max-skipped", o.max_skipped);
  at_least(0, "max-image-pixels", o.max_image_pixels);
  within(0, kMany, "decoded-cache", o.decoded_cache_mb);
  at_least(0, "memory-limit", o.memory_limit);
  at_least(0, "prefetch-batches", o.prefetch_batches);
  at_least(0, "save-frequency", o.save_frequency);
  at_least(0, "save-every-steps", o.save_every_steps);
  at_least(1, "keep-last", o.keep_last);
  at_least(0, "report-seconds", o.report_seconds);
  at_least(0, "val-frequency", o.val_frequency);
  at_least(1, "log-every-n-steps", o.log_every_n_steps);
}

constexpr const char* kOfClasses[] = {"zeroshot_top1", "zeroshot_top5"};

// What an evaluation reports (Training::evaluate).
void check_save_best(const TrainOptions& o) {
  if (o.save_best.empty()) return;
  if (o.val_data.empty()) throw UsageError("nothing is evaluated; --save-best; give --val-data");
  if (o.val_frequency == 0) throw UsageError("nothing is evaluated; --save-best; give --val-frequency 1 or more");
  std::string known = "clip_val_loss";
  bool found = o.save_best == known;
  for (const auto& [name, value] : retrieval_report({})) {
    if (name.find("_to_") == std::string::npos) continue;  // counts of the data, which no model is better by
    found = found || o.save_best == name;
    known += ", " + name;
  }
  for (const char* name : kOfClasses) {
    found = found || o.save_best == name;
    known += std::string(", ") + name;
  }
  if (!found) throw UsageError("no metric '" + o.save_best + "'; --save-best; use one of " + known);
}

}  // namespace

void check_save_best(const TrainOptions& o, const Dataset& validation) {
  for (const char* name : kOfClasses) {
    if (o.save_best == name && !validation.has_classes())
      throw ConfigError(o.save_best + " is measured on folders of classes; --save-best; use image_to_text_R@1");
  }
}

void check_limits(const TrainOptions& o) {
  check_optimization(o);
  check_augmentation(o);
  check_model(o);
  check_run(o);
  check_save_best(o);
}

}  // namespace twinlens
