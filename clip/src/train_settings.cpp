#include "clip/src/train_settings.h"

#include <algorithm>
#include <cstdlib>
#include <ctime>
#include <filesystem>
#include <fmt/format.h>

#include "twinlens/clip/embedding.h"
#include "twinlens/kernels/error.h"

namespace twinlens {
namespace {

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
  a.gamma = o.gamma_jitter;
  a.invert_probability = o.invert_prob;
  a.sharpness_probability = o.sharpness.size() == 2 ? o.sharpness_prob : 0.0;
  if (o.sharpness.size() == 2) a.sharpness = {o.sharpness[0], o.sharpness[1]};
  if (o.affine.size() == 4) {
    a.rotate_degrees = o.affine[0];
    a.translate = o.affine[1];
    a.zoom = {o.affine[2], o.affine[3]};
  }
  return a;
}

// "1::2::0.5"
std::vector<double> factors_of(const std::string& text) {
  std::vector<double> out;
  for (std::size_t begin = 0; begin < text.size();) {
    const std::size_t end = std::min(text.find("::", begin), text.size());
    const std::string word = text.substr(begin, end - begin);
    char* rest = nullptr;
    out.push_back(std::strtod(word.c_str(), &rest));
    if (word.empty() || *rest != '\0') {
      throw UsageError("'" + text + "' is no list of numbers; --train-data-upsampling-factors; give one for each source, as 1::2::0.5");
    }
    begin = end + 2;
  }
  return out;
}

void check_words(const TrainOptions& o) {
  const auto one_of = [](const char* flag, const std::string& value, std::initializer_list<const char*> known) {
    std::string list;
    for (const char* word : known) list += (list.empty() ? "" : ", ") + std::string(word);
    if (std::find(known.begin(), known.end(), value) == known.end())
      throw UsageError("unknown value '" + value + "'; --" + flag + "; use one of " + list);
  };
  one_of("equal-captions", o.equal_captions, {"negatives", "positives", "apart"});
  one_of("on-nonfinite", o.on_nonfinite, {"stop", "skip"});
  static_cast<void>(parse_schedule(o.lr_scheduler));
}

// An update inside backward has no time at which all gradients are there and no parameter has changed yet.
void check_update_in_backward(const TrainOptions& o) {
  if (!o.update_in_backward) return;
  const auto refuse = [](const std::string& what, const std::string& why) {
    throw UsageError(what + " " + why + "; --update-in-backward; leave one out");
  };
  if (o.grad_clip_norm > 0.0) refuse("--grad-clip-norm", "needs all gradients before the first update");
  if (o.on_nonfinite == "skip") refuse("--on-nonfinite skip", "needs all gradients before the first update");
  if (o.accum_freq > 1) refuse("--accum-freq", "adds gradients of several backward passes");
  if (o.max_chunk > 0) refuse("--max-chunk", "adds gradients of several backward passes");
  if (o.memory_limit > 0) refuse("--memory-limit", "may choose chunks, which add gradients of several backward passes");
  if (o.precision == "amp") refuse("--precision amp", "skips steps whose scaled gradients overflow");
}

}  // namespace

void force_config(const TrainOptions& o, ModelConfig& config) {
  std::string forced;
  const auto force = [&](bool wanted, const char* flag, auto& setting, auto value) {
    if (!wanted) return;
    setting = value;
    forced += (forced.empty() ? "" : ", ") + std::string(flag);
  };
  force(o.force_image_size > 0, "--force-image-size", config.vision.image_size, o.force_image_size);
  force(o.force_context_length > 0, "--force-context-length", config.text.context_length, o.force_context_length);
  force(o.force_patch_dropout >= 0.0, "--force-patch-dropout", config.vision.patch_dropout, o.force_patch_dropout);
  force(o.force_quick_gelu, "--force-quick-gelu", config.quick_gelu, true);
  try {
    config.validate();
  } catch (const ConfigError& e) {
    if (forced.empty()) throw;
    throw ConfigError(std::string(e.what()) + "; the model was changed by " + forced);
  }
}

LockOptions lock_options(const TrainOptions& o) {
  return {o.lock_image, o.lock_text, o.lock_image_unlocked_groups, o.lock_text_unlocked_layers};
}

DatasetOptions dataset_options(const TrainOptions& o) {
  DatasetOptions d;
  d.type = o.dataset_type;
  d.csv_separator = o.csv_separator;
  d.csv_img_key = o.csv_img_key;
  d.csv_caption_key = o.csv_caption_key;
  d.image_key = o.image_key;
  d.text_key = o.text_key;
  d.json_text_key = o.json_text_key;
  d.json_text_key_probs = o.json_text_key_probs;
  d.captions = o.captions;
  d.upsampling = factors_of(o.train_data_upsampling_factors);
  d.compressed = o.compressed_shards;
  return d;
}

DatasetOptions validation_data_options(const TrainOptions& o) {
  DatasetOptions d = dataset_options(o);
  d.captions = "all";  // as `twinlens eval`
  d.json_text_key_probs.clear();
  d.upsampling.clear();
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
  std::string model = std::filesystem::path(o.model).stem().string();
  return fmt::format("{}-{}-lr_{}-b_{}-{}", std::time(nullptr), model.empty() ? "model" : model, o.lr, o.batch_size, o.precision);
}

LoaderOptions loader_options(const TrainOptions& o, const ModelConfig& config) {
  LoaderOptions l;
  l.batch_size = o.batch_size * o.accum_freq;
  l.image_size = config.vision.image_size;
  l.augment = augment_options(o, config);
  l.context_length = config.text.context_length;
  l.seed = o.seed;
  l.workers = o.workers;
  l.equal_captions_apart = o.equal_captions == "apart";
  l.max_image_pixels = o.max_image_pixels;
  l.decoded_cache = o.decoded_cache_mb * 1'000'000;
  l.fast_decode = o.fast_decode;
  l.max_skipped = o.max_skipped;
  l.draw_captions = o.captions == "random" || !o.json_text_key_probs.empty();
  l.shuffle_buffer = o.shuffle_buffer;
  l.pinned = o.prefetch_batches > 0;
  l.device_transforms = o.device_transforms;
  return l;
}

StepOptions step_options(const TrainOptions& o) {
  check_words(o);
  StepOptions s;
  s.equal_captions = o.equal_captions == "negatives" ? EqualCaptions::negatives : EqualCaptions::positives;
  s.max_chunk = o.max_chunk > 0 ? o.max_chunk : (o.accum_freq > 1 ? o.batch_size : 0);
  s.loss = o.siglip ? LossKind::sigmoid : LossKind::softmax;
  s.stream_loss = o.stream_loss;
  s.seed = o.seed;
  s.encode_equal_once = o.encode_equal_once;
  s.pack_captions = o.pack_captions;
  s.row_buckets = o.cuda_graphs;
  if (o.siglip && o.label_smoothing > 0.0) {
    throw UsageError("label smoothing is defined for the softmax loss only; --label-smoothing with --siglip; leave one out");
  }
  s.label_smoothing = o.label_smoothing;
  check_update_in_backward(o);
  s.backward_if_finite = o.update_in_backward;
  return s;
}

Schedule schedule_of(const TrainOptions& o, std::int64_t steps_per_epoch) {
  Schedule s;
  s.kind = parse_schedule(o.lr_scheduler);
  s.base = o.lr;
  s.total = std::max<std::int64_t>(1, steps_per_epoch * o.epochs);
  s.warmup = o.warmup;
  s.cooldown = steps_per_epoch * o.epochs_cooldown;
  s.cooldown_end = o.lr_cooldown_end;
  s.cooldown_power = o.lr_cooldown_power;
  return s;
}

nlohmann::ordered_json resume_settings(const TrainOptions& o, const ModelConfig& config) {
  const AdamWOptions adamw = adamw_options(o, config);
  nlohmann::ordered_json out{{"model", nlohmann::ordered_json::parse(to_json(config))},
                             {"batch", o.batch_size * o.accum_freq},
                             {"epochs", o.epochs},
                             {"lr", o.lr},
                             {"wd", o.wd},
                             {"beta1", adamw.beta1},
                             {"beta2", adamw.beta2},
                             {"eps", adamw.eps},
                             {"warmup", o.warmup},
                             {"lr_scheduler", o.lr_scheduler},
                             {"epochs_cooldown", o.epochs_cooldown},
                             {"lr_cooldown_end", o.lr_cooldown_end},
                             {"lr_cooldown_power", o.lr_cooldown_power},
                             {"lock_image", o.lock_image},
                             {"lock_text", o.lock_text},
                             {"lock_image_unlocked_groups", o.lock_image_unlocked_groups},
                             {"lock_image_freeze_bn_stats", o.lock_image_freeze_bn_stats},
                             {"lock_text_unlocked_layers", o.lock_text_unlocked_layers},
                             {"image_layer_decay", o.image_layer_decay},
                             {"text_layer_decay", o.text_layer_decay},
                             {"precision", o.precision},
                             {"equal_captions", o.equal_captions},
                             {"aug_scale", o.aug_scale},
                             {"flip", o.flip},
                             {"color_jitter", o.color_jitter},
                             {"color_jitter_prob", o.color_jitter_prob},
                             {"gray_scale_prob", o.gray_scale_prob},
                             {"gamma_jitter", o.gamma_jitter},
                             {"invert_prob", o.invert_prob},
                             {"sharpness", o.sharpness},
                             {"sharpness_prob", o.sharpness_prob},
                             {"label_smoothing", o.label_smoothing},
                             {"affine", o.affine},
                             {"grad_clip_norm", o.grad_clip_norm},
                             {"ema", o.ema},
                             {"seed", o.seed},
                             {"image_key", o.image_key},
                             {"text_key", o.text_key},
                             {"json_text_key", o.json_text_key},
                             {"json_text_key_probs", o.json_text_key_probs},
                             {"captions", o.captions},
                             {"train_data_upsampling_factors", o.train_data_upsampling_factors},
                             {"compressed_shards", o.compressed_shards},
                             {"shuffle_buffer", o.shuffle_buffer}};
  if (o.siglip) out["siglip"] = true;
  if (o.recompute_cheap && o.precision != "fp32") out["recompute_cheap"] = true;  // (in fp32 it changes no bits)
  // (Filled-up batches are products of other sizes.)
  if (o.cuda_graphs) out["cuda_graphs"] = true;
  if (o.fast_decode) out["fast_decode"] = true;
  // Written where they are not what they are by default, so that older checkpoints go on.
  const TrainOptions plain;
  const auto note = [&](const char* name, const auto& value, const auto& usual) {
    if (value != usual) out[name] = value;
  };
  note("on_nonfinite", o.on_nonfinite, plain.on_nonfinite);
  note("spike_factor", o.spike_factor, plain.spike_factor);
  note("max_bad_steps", o.max_bad_steps, plain.max_bad_steps);
  note("max_image_pixels", o.max_image_pixels, plain.max_image_pixels);
  note("stream_loss", o.stream_loss, plain.stream_loss);
  note("pack_captions", o.pack_captions, plain.pack_captions);
  note("prune_last_block", o.prune_last_block, plain.prune_last_block);
  note("encode_equal_once", o.encode_equal_once, plain.encode_equal_once);
  return out;
}

}  // namespace twinlens
