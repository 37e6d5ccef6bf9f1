#include "clip/src/train_options.h"

#include <filesystem>
#include <fmt/format.h>
#include <fmt/ranges.h>

#include "clip/src/resume.h"

#include "twinlens/clip/config.h"
#include "twinlens/core/file.h"
#include "twinlens/kernels/error.h"

namespace twinlens {
namespace {

namespace fs = std::filesystem;

template <class T>
std::string text_of(const T& value) {
  return fmt::format("{}", value);
}
std::string text_of(bool value) { return value ? "true" : "false"; }
std::string text_of(const std::vector<double>& value) { return fmt::format("{}", fmt::join(value, " ")); }

// Calls add(flag's name, value) for each of the options o, which may be const.
template <class Options, class F>
void each_option(Options& o, F&& add) {
  add("train-data", o.train_data);
  add("val-data", o.val_data);
  add("dataset-type", o.dataset_type);
  add("csv-separator", o.csv_separator);
  add("csv-img-key", o.csv_img_key);
  add("csv-caption-key", o.csv_caption_key);
  add("image-key", o.image_key);
  add("text-key", o.text_key);
  add("json-text-key", o.json_text_key);
  add("json-text-key-probs", o.json_text_key_probs);
  add("captions", o.captions);
  add("train-data-upsampling-factors", o.train_data_upsampling_factors);
  add("compressed-shards", o.compressed_shards);
  add("shuffle-buffer", o.shuffle_buffer);
  add("model", o.model);
  add("pretrained", o.pretrained);
  add("logs", o.logs);
  add("name", o.name);
  add("resume", o.resume);
  add("precision", o.precision);
  add("device", o.device);
  add("batch-size", o.batch_size);
  add("epochs", o.epochs);
  add("accum-freq", o.accum_freq);
  add("max-chunk", o.max_chunk);
  add("lr", o.lr);
  add("wd", o.wd);
  add("beta1", o.beta1);
  add("beta2", o.beta2);
  add("eps", o.eps);
  add("warmup", o.warmup);
  add("lr-scheduler", o.lr_scheduler);
  add("epochs-cooldown", o.epochs_cooldown);
  add("lr-cooldown-end", o.lr_cooldown_end);
  add("lr-cooldown-power", o.lr_cooldown_power);
  add("grad-clip-norm", o.grad_clip_norm);
  add("label-smoothing", o.label_smoothing);
  add("ema", o.ema);
  add("on-nonfinite", o.on_nonfinite);
  add("spike-factor", o.spike_factor);
  add("max-bad-steps", o.max_bad_steps);
  add("siglip", o.siglip);
  add("stream-loss", o.stream_loss);
  add("seed", o.seed);
  add("workers", o.workers);
  add("threads", o.threads);
  add("grad-checkpointing", o.grad_checkpointing);
  add("recompute-cheap", o.recompute_cheap);
  add("update-in-backward", o.update_in_backward);
  add("weight-copies", o.weight_copies);
  add("lock-image", o.lock_image);
  add("lock-text", o.lock_text);
  add("lock-image-unlocked-groups", o.lock_image_unlocked_groups);
  add("lock-image-freeze-bn-stats", o.lock_image_freeze_bn_stats);
  add("lock-text-unlocked-layers", o.lock_text_unlocked_layers);
  add("image-layer-decay", o.image_layer_decay);
  add("text-layer-decay", o.text_layer_decay);
  add("force-image-size", o.force_image_size);
  add("force-context-length", o.force_context_length);
  add("force-patch-dropout", o.force_patch_dropout);
  add("force-quick-gelu", o.force_quick_gelu);
  add("equal-captions", o.equal_captions);
  add("aug-scale", o.aug_scale);
  add("flip", o.flip);
  add("color-jitter", o.color_jitter);
  add("color-jitter-prob", o.color_jitter_prob);
  add("gray-scale-prob", o.gray_scale_prob);
  add("gamma-jitter", o.gamma_jitter);
  add("invert-prob", o.invert_prob);
  add("sharpness", o.sharpness);
  add("sharpness-prob", o.sharpness_prob);
  add("affine", o.affine);
  add("save-frequency", o.save_frequency);
  add("save-every-steps", o.save_every_steps);
  add("keep-last", o.keep_last);
  add("save-best", o.save_best);
  add("async-save", o.async_save);
  add("report-to", o.report_to);
  add("report-seconds", o.report_seconds);
  add("val-frequency", o.val_frequency);
  add("log-every-n-steps", o.log_every_n_steps);
  add("max-skipped", o.max_skipped);
  add("max-image-pixels", o.max_image_pixels);
  add("decoded-cache", o.decoded_cache_mb);
  add("fast-decode", o.fast_decode);
  add("memory-limit", o.memory_limit);
  add("prefetch-batches", o.prefetch_batches);
  add("device-transforms", o.device_transforms);
  add("async-step", o.async_step);
  add("cuda-graphs", o.cuda_graphs);
  add("pack-captions", o.pack_captions);
  add("prune-last-block", o.prune_last_block);
  add("encode-equal-once", o.encode_equal_once);
}

}  // namespace

std::vector<std::pair<std::string, std::string>> describe(const TrainOptions& o) {
  std::vector<std::pair<std::string, std::string>> out;
  each_option(o, [&](const char* name, const auto& value) { out.emplace_back(name, text_of(value)); });
  return out;
}

nlohmann::ordered_json params_of(const TrainOptions& o) {
  nlohmann::ordered_json out;
  each_option(o, [&](const char* name, const auto& value) { out[name] = value; });
  return out;
}

void check_run_is_named(const TrainOptions& o) {
  if (o.resume == "latest" && o.name.empty()) throw UsageError("it is not said which run goes on; --resume latest; give --name");
}

TrainOptions options_to_resume(const TrainOptions& which) {
  check_run_is_named(which);
  const fs::path file = run_of(fs::path(which.logs) / which.name, which.resume) / kParams;
  std::error_code ignored;
  if (!fs::exists(file, ignored)) return which;
  const auto refuse = [&](const std::string& what) {
    throw FileError("resume: " + what + "; " + file.string() + "; move it away and give all flags of the first run");
  };
  const auto params = nlohmann::ordered_json::parse(read_file(file.string()), nullptr, false);
  if (!params.is_object()) refuse("no JSON object");
  TrainOptions o;
  each_option(o, [&](const char* name, auto& value) {
    const auto found = params.find(name);
    if (found == params.end()) return;  // of an older version
    try {
      found->get_to(value);
    } catch (const nlohmann::json::exception&) {
      refuse("'" + std::string(name) + "' cannot be " + found->dump());
    }
  });
  // (Not compared where the run has gone on by its own model, whose name then stands for what was gone.)
  const fs::path run = file.parent_path();
  const auto is_of_run = [&](const std::string& source) {
    return !source.empty() && !fs::relative(source, run, ignored).string().starts_with("..");
  };
  if (!which.pretrained.empty() && which.pretrained != o.pretrained && !fs::equivalent(which.pretrained, o.pretrained, ignored) &&
      !is_of_run(o.pretrained)) {
    throw ConfigError("resume: the run began with " + (o.pretrained.empty() ? "random weights" : "'" + o.pretrained + "'") +
                      ", not with '" + which.pretrained + "'; --pretrained; leave it out, or start a new run");
  }
  // What its model came from may be gone, and no other is given: its own has the shape and the tokenizer, and the checkpoint the weights.
  fs::path own;
  for (std::string TrainOptions::*const option : {&TrainOptions::model, &TrainOptions::pretrained}) {
    std::string* const source = &(o.*option);
    if (!(which.*option).empty() || source->empty() || builtin_model_config(*source) || fs::exists(*source, ignored)) continue;
    if (own.empty()) own = own_model_of(fs::path(which.logs) / which.name, which.resume);  // (reads a checkpoint)
    if (own.empty()) continue;
    fmt::print(stderr, "note: '{}', which the run began with, is not there; its own model serves, {}\n", *source, own.string());
    *source = own.string();
  }
  o.threads = 0;
  o.logs = which.logs;
  o.name = which.name;
  o.resume = which.resume;
  return o;
}

}  // namespace twinlens
