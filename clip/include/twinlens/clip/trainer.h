#pragma once
// The training program as a function: data in, LOGS/NAME out (params.json, out.log, metrics.jsonl, checkpoints/, model/, report.html,
// skipped.tsv; best/ and tensorboard/ when asked for: docs/runs.md).

#include <atomic>
#include <cstdint>
#include <functional>
#include <string>
#include <utility>
#include <vector>

namespace twinlens {

// Flags of `twinlens train`; names and meaning are open_clip's where it has them.
struct TrainOptions {
  std::string train_data, val_data;
  std::string dataset_type = "auto";
  std::string csv_separator, csv_img_key, csv_caption_key;
  std::string image_key = "jpg;png;jpeg;webp", text_key = "txt", json_text_key;  // see DatasetOptions
  std::vector<double> json_text_key_probs;
  std::string captions = "first";             // of several: first, random, all
  std::string train_data_upsampling_factors;  // 1::2::0.5, one for each `::` part
  std::string compressed_shards = "auto";
  std::int64_t shuffle_buffer = 0;  // samples; 0: whole epochs, 5000 where shards are streamed
  std::string model;                // empty: what `pretrained` is, else ViT-B-32
  std::string pretrained;
  std::string logs = "./logs";
  std::string name;  // made from model and time when empty
  std::string resume;
  std::string precision = "fp32";
  std::string device = "cpu";
  std::int64_t batch_size = 64;
  std::int64_t epochs = 32;
  std::int64_t accum_freq = 1, max_chunk = 0;
  double lr = 5e-4, wd = 0.2, beta1 = -1.0, beta2 = -1.0, eps = -1.0;  // negative: by model, as open_clip
  std::int64_t warmup = -1;  // steps; negative: 5 % of all steps, at most 10,000, or what a resumed run had
  std::string lr_scheduler = "cosine";
  std::int64_t epochs_cooldown = 0;
  double lr_cooldown_end = 0.0, lr_cooldown_power = 1.0;
  double grad_clip_norm = 0.0;
  double label_smoothing = 0.0;
  double ema = 0.0;                   // decay; 0: off
  std::string on_nonfinite = "stop";  // or skip
  double spike_factor = 10.0;         // a gradient norm above so many times its running size is a spike; 0: none is
  std::int64_t max_bad_steps = 5;     // with skip: so many bad steps in a row lead back to the last checkpoint
  std::uint64_t seed = 0;
  int workers = 2, threads = 0;
  bool grad_checkpointing = false, lock_image = false, lock_text = false;
  bool recompute_cheap = false, update_in_backward = false;           // Context::recompute_cheap, AdamWInBackward
  bool weight_copies = true;                                          // of bf16, for products
  bool siglip = false;                                                // SigLIP's sigmoid loss
  bool stream_loss = true;                                            // the loss from tiles of logits
  int lock_image_unlocked_groups = 0, lock_text_unlocked_layers = 0;  // the last groups of a locked tower that are trained all the same
  bool lock_image_freeze_bn_stats = false;
  double image_layer_decay = 1.0, text_layer_decay = 1.0;  // of the learning rate, per group from the head down
  int force_image_size = 0, force_context_length = 0;      // 0: the model's
  double force_patch_dropout = -1.0;                       // below 0: the model's
  bool force_quick_gelu = false;
  std::string equal_captions = "positives";  // negatives, positives, apart
  std::vector<double> aug_scale{0.9, 1.0};
  bool flip = false;
  std::vector<double> color_jitter;  // brightness, contrast, saturation, hue
  double color_jitter_prob = 0.0, gray_scale_prob = 0.0;
  double gamma_jitter = 0.0, invert_prob = 0.0;
  std::vector<double> sharpness;  // factor low, high
  double sharpness_prob = 0.5;
  std::vector<double> affine;       // degrees, translate, scale low, scale high
  std::int64_t save_frequency = 1;  // epochs
  std::int64_t save_every_steps = 0, keep_last = 3;
  std::string save_best;           // a metric of the evaluation: its best checkpoint is kept, and best/ holds that model
  bool async_save = true;          // write checkpoints while training goes on
  std::string report_to;           // tensorboard, or nothing
  double report_seconds = 30.0;    // between two states of report.html; 0: only at the end
  std::int64_t val_frequency = 1;  // epochs
  std::int64_t log_every_n_steps = 10;
  double max_skipped = 0.01;
  std::int64_t max_image_pixels = 25'000'000;
  std::int64_t decoded_cache_mb = 256;  // LoaderOptions::decoded_cache
  bool fast_decode = false;             // LoaderOptions::fast_decode, and EmbedOptions::fast_decode of evaluations
  std::int64_t memory_limit = 0;        // bytes of tensor memory; chooses max_chunk
  std::int64_t prefetch_batches = 0;    // batches copied to a card before their step, on a stream of their own; 0: none
  bool device_transforms = false;       // crop, resize, flip and colour on the card
  bool async_step = false;              // on a card: the host does not wait for a step
  bool cuda_graphs = false;             // on a card: steps are recorded and queued again; with async_step and prefetch_batches
  bool pack_captions = true, prune_last_block = true, encode_equal_once = true;
};

// Every option as (name, resolved value), as text for the report. Names are those of the flags, --no-NAME's without its "no".
std::vector<std::pair<std::string, std::string>> describe(const TrainOptions& options);

// With what the run that `which.resume` names is to go on: the options in its params.json, but for `threads`, which are this machine's, and
// logs, name and resume, which are those of `which`. `which` itself where the run is not there yet (`latest`), or has no params.json beside
// its checkpoints. Throws UsageError for `latest` without a name, FileError where `resume` names no checkpoint, or params.json cannot be
// read or has a value that is no such option's.
TrainOptions options_to_resume(const TrainOptions& which);

struct TrainResult {
  std::string run_folder;
  std::int64_t steps = 0;
  double last_loss = 0.0;      // not a number where no step was made
  bool stopped_early = false;  // by *stop
};

// Runs to the end, or until *stop becomes true: then it saves and returns. Progress goes to stderr. Throws typed errors (ConfigError before
// anything else for options that make no sense); the last good checkpoint is kept whatever happens. Switches of the process (thread count,
// thrifty memory, staged copies) stay as the run has set them.
TrainResult train(const TrainOptions& options, const std::atomic<bool>* stop = nullptr);

}  // namespace twinlens
