#include "clip/src/run_report.h"

#include <algorithm>
#include <fmt/format.h>
#include <fmt/ranges.h>
#include <fstream>

#include "twinlens/clip/image.h"
#include "twinlens/clip/report.h"
#include "twinlens/core/autograd.h"
#include "twinlens/core/file.h"
#include "twinlens/core/ops.h"
#include "twinlens/kernels/error.h"

namespace twinlens {
namespace {

std::string percent(double share) { return fmt::format("{:.1f} %", 100.0 * share); }

// (The pictures were decoded before: they are within --max-image-pixels.)
Image thumbnail(const Dataset& data, std::int64_t sample, const ModelConfig& config) {
  EvalTransform transform = eval_transform_of(config);
  transform.size = std::min<std::int64_t>(transform.size, 64);
  return apply(transform, decode_image(data.image_bytes(sample), data.key(sample), {0}));
}

// `count` indices spread evenly over [0, n).
std::vector<std::int64_t> spread(std::int64_t n, std::int64_t count) {
  std::vector<std::int64_t> out;
  for (std::int64_t i = 0; i < std::min(n, count); ++i) out.push_back(i * n / std::min(n, count));
  return out;
}

// Whether caption `text` is one of picture `picture`.
bool is_of(const EmbeddedDataset& e, std::int64_t picture, std::int64_t text) {
  const std::vector<std::int64_t>& own = e.texts_of[static_cast<std::size_t>(picture)];
  return std::find(own.begin(), own.end(), text) != own.end();
}

void add_validation(Report& report, const Clip& model, const Dataset& data, const EmbeddedDataset& e) {
  const Retrieval r = retrieval_metrics(e.images, e.texts, e.texts_of);
  report.tables.push_back(
      {"Retrieval on the validation data",
       fmt::format("{} pictures, {} distinct captions; chance R@1 {}.", r.images, r.texts, percent(1.0 / static_cast<double>(r.texts))),
       {"", "R@1", "R@5", "R@10", "median rank"},
       {{"image to text", percent(r.image_to_text.r1), percent(r.image_to_text.r5), percent(r.image_to_text.r10),
         fmt::format("{:.0f}", r.image_to_text.median_rank)},
        {"text to image", percent(r.text_to_image.r1), percent(r.text_to_image.r5), percent(r.text_to_image.r10),
         fmt::format("{:.0f}", r.text_to_image.median_rank)}}});
  const auto m = static_cast<std::int64_t>(e.captions.size());
  for (const std::int64_t c : spread(m, 14)) {
    ReportQuery query{e.captions[static_cast<std::size_t>(c)], {}};
    const auto found = nearest(e.texts.slice(0, c, c + 1), e.images, 8).front();
    for (const std::int64_t i : found) {
      const auto at = static_cast<std::size_t>(i);
      query.pictures.push_back(
          {thumbnail(data, e.samples[at], model.config), e.captions[static_cast<std::size_t>(e.caption_of[at])], is_of(e, i, c)});
    }
    report.queries.push_back(std::move(query));
  }
  const auto best = nearest(e.images, e.texts, 1);
  std::vector<std::int64_t> wrong;
  for (std::size_t i = 0; i < best.size(); ++i) {
    if (!is_of(e, static_cast<std::int64_t>(i), best[i].front())) wrong.push_back(static_cast<std::int64_t>(i));
  }
  for (const std::int64_t k : spread(static_cast<std::int64_t>(wrong.size()), 24)) {
    const auto i = static_cast<std::size_t>(wrong[static_cast<std::size_t>(k)]);
    report.mistakes.push_back({thumbnail(data, e.samples[i], model.config), e.captions[static_cast<std::size_t>(e.caption_of[i])],
                               e.captions[static_cast<std::size_t>(best[i].front())]});
  }
}

template <class T>
std::string text_of(const T& value) {
  return fmt::format("{}", value);
}
std::string text_of(bool value) { return value ? "true" : "false"; }
std::string text_of(const std::vector<double>& value) { return fmt::format("{}", fmt::join(value, " ")); }

// Calls add(flag's name, resolved value).
template <class F>
void each_option(const TrainOptions& o, F&& add) {
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

std::string one_line(std::string text) {
  std::replace_if(
      text.begin(), text.end(), [](char c) { return c == '\t' || c == '\n' || c == '\r'; }, ' ');
  return text;
}

void write_skipped(const std::filesystem::path& file, const std::vector<SkippedSample>& skipped) {
  if (skipped.empty()) return;
  std::string text;
  for (const SkippedSample& s : skipped) {
    text += one_line(s.key) + "\t" + one_line(s.reason) + "\n";
  }
  atomic_write(file.string(), text);
}

std::vector<SkippedSample> read_skipped(const std::filesystem::path& file) {
  std::vector<SkippedSample> out;
  std::ifstream lines(file);
  std::string line;
  while (std::getline(lines, line)) {
    const auto tab = line.find('\t');
    if (tab != std::string::npos) out.push_back({line.substr(0, tab), line.substr(tab + 1)});
  }
  return out;
}

void write_run_report(const std::filesystem::path& folder, const TrainOptions& options, const Clip& model, const Tokenizer& tokenizer,
                      const Dataset* validation, const EmbedOptions& embed, const TrainState& state, const ReportTable& data) {
  Report report;
  report.title = "twinlens: " + options.name;
  report.summary = fmt::format("{} steps, {} pairs seen, {} epochs done; logit scale {:.2f}.", state.step, state.samples, state.epoch,
                               model.logit_scale_value());
  report.settings = describe(options);
  if (validation != nullptr) {
    add_validation(report, model, *validation, embed_dataset(model, tokenizer, *validation, embed));
  }
  report.tables.push_back(data);
  write_report(folder / "report.html", report, folder / "metrics.jsonl");
}

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

}  // namespace twinlens
