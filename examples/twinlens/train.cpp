#include <cstdio>
#include <nlohmann/json.hpp>

#include "examples/twinlens/command.h"
#include "examples/twinlens/number_checks.h"
#include "examples/twinlens/output.h"

#include "twinlens/clip/trainer.h"

namespace twinlens::program {
namespace {

// A check of one of a flag's numbers alone.
CLI::Validator place(int index, const CLI::Validator& check) { return check.application_index(index).description(""); }

void add_data_flags(CLI::App& app, TrainOptions& o) {
  const char* group = "Data";
  app.add_option("--train-data", o.train_data,
                 "Required: shards (braces as in a shell, * ? [], joined by ::), CSV/TSV, or a folder of pictures with .txt beside them")
      ->group(group);
  app.add_option("--val-data", o.val_data, "Evaluated during training; the same forms")->group(group);
  app.add_option("--dataset-type", o.dataset_type, "auto, webdataset, csv or folder")
      ->group(group)
      ->capture_default_str()
      ->check(CLI::IsMember({"auto", "webdataset", "csv", "folder"}));
  app.add_option("--csv-separator", o.csv_separator, "Sniffed when not given")->group(group);
  app.add_option("--csv-img-key", o.csv_img_key, "Column of image paths (filepath and common aliases)")->group(group);
  app.add_option("--csv-caption-key", o.csv_caption_key, "Column of captions (title and common aliases)")->group(group);
  app.add_option("--image-key", o.image_key, "Shards: extensions of pictures, best first; jpg or jpeg also takes jpe and jfif")
      ->group(group)
      ->capture_default_str();
  app.add_option("--text-key", o.text_key, "Shards: extensions of captions, best first")->group(group)->capture_default_str();
  app.add_option("--json-text-key", o.json_text_key,
                 "Shards: captions from these fields of the .json member instead, best first ('a;b'); a list gives several")
      ->group(group);
  app.add_option("--json-text-key-probs", o.json_text_key_probs, "Weights by which a caption is drawn from these fields each epoch")
      ->group(group)
      ->expected(1, 200)
      ->check(at_least(0));
  app.add_option("--captions", o.captions,
                 "Of several captions of a picture: first, random (another one each epoch), all (a pair for each)")
      ->group(group)
      ->capture_default_str()
      ->check(CLI::IsMember({"first", "random", "all"}));
  app.add_option("--train-data-upsampling-factors", o.train_data_upsampling_factors,
                 "How often an epoch goes through each source between ::, as 1::2::0.5")
      ->group(group);
  app.add_option("--shuffle-buffer", o.shuffle_buffer,
                 "Samples shuffled together, read in sequence (for hard disks, network); 0: the whole epoch, 5000 for streamed shards")
      ->group(group)
      ->capture_default_str()
      ->check(at_least(0));
  app.add_option("--compressed-shards", o.compressed_shards,
                 ".tar.gz and .tar.zst: unpack (to TMPDIR), stream (in order, through the shuffle buffer), auto (unpack up to 256 MB)")
      ->group(group)
      ->capture_default_str()
      ->check(CLI::IsMember({"auto", "unpack", "stream"}));
  app.add_option("--workers", o.workers, "Threads that read and decode")->group(group)->capture_default_str()->check(within(1, 1024));
  app.add_option("--max-skipped", o.max_skipped, "Share of samples that may be unusable before training stops")
      ->group(group)
      ->capture_default_str()
      ->check(within(0, 1));
  app.add_option("--max-image-pixels", o.max_image_pixels, "Larger pictures are refused from their header; 0: no limit")
      ->group(group)
      ->capture_default_str()
      ->check(at_least(0));
  app.add_option("--decoded-cache", o.decoded_cache_mb,
                 "MB: where all decoded pictures fit into so many, they are decoded once; 0: never kept")
      ->group(group)
      ->capture_default_str()
      ->check(at_least(0));
  app.add_flag("--fast-decode", o.fast_decode,
               "Decode JPEGs at 1/2, 1/4 or 1/8 where the crop still has as many pixels as the model wants; not the same bits. Without "
               "--decoded-cache")
      ->group(group);
  app.add_option("--equal-captions", o.equal_captions,
                 "Captions that stand several times in a batch: negatives (as open_clip), positives (never pushed apart), apart (kept out "
                 "of one batch)")
      ->group(group)
      ->capture_default_str()
      ->check(CLI::IsMember({"negatives", "positives", "apart"}));
}

void add_augmentation_flags(CLI::App& app, TrainOptions& o) {
  const char* group = "Augmentation";
  app.add_option("--aug-scale", o.aug_scale, "Area range of the random crop")
      ->expected(2)
      ->group(group)
      ->capture_default_str()
      ->check(within_above(0, 1));
  app.add_flag("--flip", o.flip, "Random horizontal flip")->group(group);
  app.add_option("--color-jitter", o.color_jitter, "Strength of brightness, contrast, saturation, hue")
      ->expected(4)
      ->group(group)
      ->check(at_least(0))
      ->check(place(3, within(0, 0.5)));
  app.add_option("--color-jitter-prob", o.color_jitter_prob, "Probability of colour jitter")
      ->group(group)
      ->capture_default_str()
      ->check(within(0, 1));
  app.add_option("--gray-scale-prob", o.gray_scale_prob, "Probability of a gray picture")
      ->group(group)
      ->capture_default_str()
      ->check(within(0, 1));
  app.add_option("--gamma-jitter", o.gamma_jitter, "Exponent of all values drawn log-uniformly from e^-x to e^x")
      ->group(group)
      ->capture_default_str()
      ->check(at_least(0));
  app.add_option("--invert-prob", o.invert_prob, "Probability of inverted values")
      ->group(group)
      ->capture_default_str()
      ->check(within(0, 1));
  app.add_option("--sharpness", o.sharpness, "Range of the factor: 0 blurs, 1 changes nothing, above 1 sharpens")
      ->expected(2)
      ->group(group)
      ->check(at_least(0));
  app.add_option("--sharpness-prob", o.sharpness_prob, "Probability of a change in sharpness")
      ->group(group)
      ->capture_default_str()
      ->check(within(0, 1));
  app.add_option("--affine", o.affine, "Random rotation (degrees), shift (share of the side), zoom low, zoom high")
      ->expected(4)
      ->group(group)
      ->check(at_least(0))
      ->check(place(1, within(0, 1)))
      ->check(place(2, above(0)))
      ->check(place(3, above(0)));
}

void add_model_flags(CLI::App& app, TrainOptions& o) {
  const char* group = "Model";
  app.add_option("--model", o.model, "Built-in name, open_clip config .json, or model folder; default: what --pretrained is, else ViT-B-32")
      ->group(group);
  app.add_option("--pretrained", o.pretrained,
                 "Weights to start from: a model folder, or a file of OpenAI's, open_clip's or Hugging Face's")
      ->group(group);
  app.add_option("--force-image-size", o.force_image_size, "Another image size; position embeddings of --pretrained are resized")
      ->group(group)
      ->check(at_least(1));
  app.add_option("--force-context-length", o.force_context_length, "Another context length; position embeddings are resized")
      ->group(group)
      ->check(at_least(1));
  app.add_option("--force-patch-dropout", o.force_patch_dropout,
                 "Share of each picture's patches that training leaves out (FLIP), whatever the model says; the class token stays")
      ->group(group)
      ->check(within_below(0, 1));
  app.add_flag("--force-quick-gelu", o.force_quick_gelu, "QuickGELU whatever the model says")->group(group);
  app.add_flag("--lock-image", o.lock_image, "Freeze the image tower")->group(group);
  app.add_option("--lock-image-unlocked-groups", o.lock_image_unlocked_groups,
                 "Train the last so many groups of a locked image tower: projection; last block (a ResNet's stage); ...; embeddings")
      ->group(group)
      ->check(at_least(0));
  app.add_flag("--lock-image-freeze-bn-stats", o.lock_image_freeze_bn_stats,
               "Batch norms of what is locked of the image tower keep and use their running statistics")
      ->group(group);
  app.add_flag("--lock-text", o.lock_text, "Freeze the text tower")->group(group);
  app.add_flag("--siglip", o.siglip,
               "SigLIP's sigmoid loss; a model without a logit bias gets one of -10, and without --pretrained a scale of 10")
      ->group(group);
  app.add_option("--lock-text-unlocked-layers", o.lock_text_unlocked_layers, "The same for a locked text tower")
      ->group(group)
      ->check(at_least(0));
  app.add_option("--image-layer-decay", o.image_layer_decay,
                 "Factor of the learning rate from each group of the image tower to the one below it; 1: none")
      ->group(group)
      ->check(within(1e-6, 1));
  app.add_option("--text-layer-decay", o.text_layer_decay, "The same for the text tower")->group(group)->check(within(1e-6, 1));
}

void add_optimizer_flags(CLI::App& app, TrainOptions& o) {
  const char* group = "Optimization";
  app.add_option("--batch-size", o.batch_size, "Pairs per process and micro-batch")
      ->group(group)
      ->capture_default_str()
      ->check(at_least(1));
  app.add_option("--accum-freq", o.accum_freq, "Micro-batches per step; the loss sees all of their pairs")
      ->group(group)
      ->capture_default_str()
      ->check(at_least(1));
  app.add_option(
         "--max-chunk", o.max_chunk,
         "Pairs encoded at once; bounds memory and does not change the result (but a ResNet's, whose batch norm sees chunks); 0: all")
      ->group(group)
      ->capture_default_str()
      ->check(at_least(0));
  app.add_option("--epochs", o.epochs, "Passes through the training data")->group(group)->capture_default_str()->check(at_least(1));
  app.add_option("--lr", o.lr, "Peak learning rate")->group(group)->capture_default_str()->check(at_least(0));
  app.add_option("--wd", o.wd, "Weight decay of matrices")->group(group)->capture_default_str()->check(at_least(0));
  app.add_option("--beta1", o.beta1, "Default by model, as open_clip: 0.9")->group(group)->check(within_below(0, 1));
  app.add_option("--beta2", o.beta2, "Default by model: 0.98 for ViT, 0.999 for ResNet")->group(group)->check(within_below(0, 1));
  app.add_option("--eps", o.eps, "Default by model: 1e-6 for ViT, 1e-8 for ResNet")->group(group)->check(above(0));
  app.add_option("--warmup", o.warmup, "Steps; default 5 % of all steps, at most 10000")->group(group)->check(at_least(-1));
  app.add_option("--lr-scheduler", o.lr_scheduler, "cosine, const or const-cooldown")
      ->group(group)
      ->capture_default_str()
      ->check(CLI::IsMember({"cosine", "const", "const-cooldown"}));
  app.add_option("--epochs-cooldown", o.epochs_cooldown, "Last epochs of const-cooldown")->group(group)->check(at_least(0));
  app.add_option("--lr-cooldown-end", o.lr_cooldown_end, "Learning rate at the end of the cooldown")
      ->capture_default_str()
      ->group(group)
      ->check(at_least(0));
  app.add_option("--lr-cooldown-power", o.lr_cooldown_power, "Exponent of the cooldown's curve; 1: a straight line")
      ->capture_default_str()
      ->group(group);
  app.add_option("--label-smoothing", o.label_smoothing, "Share of every target that is spread evenly over the batch")
      ->group(group)
      ->capture_default_str()
      ->check(within(0, 1));
  app.add_option("--grad-clip-norm", o.grad_clip_norm, "Global gradient norm limit; 0: off")
      ->group(group)
      ->capture_default_str()
      ->check(at_least(0));
  app.add_option("--ema", o.ema, "Decay of the averaged weights used for evaluation and model/; 0: off")
      ->group(group)
      ->capture_default_str()
      ->check(within_below(0, 1));
  app.add_option("--on-nonfinite", o.on_nonfinite,
                 "A loss or gradient that is NaN or infinite: stop, or skip the step and count it (and steps with a spike)")
      ->group(group)
      ->capture_default_str()
      ->check(CLI::IsMember({"stop", "skip"}));
  app.add_option("--spike-factor", o.spike_factor,
                 "A gradient norm above so many times its running size is a spike: noted, and skipped with --on-nonfinite skip; 0: off")
      ->group(group)
      ->capture_default_str()
      ->check(at_least(0));
  app.add_option("--max-bad-steps", o.max_bad_steps, "With --on-nonfinite skip: so many in a row lead back to the last checkpoint")
      ->group(group)
      ->capture_default_str()
      ->check(at_least(1));
  app.add_option("--seed", o.seed, "Of initial weights, order of the data and augmentation")->group(group)->capture_default_str();
}

void add_machine_flags(CLI::App& app, TrainOptions& o) {
  const char* group = "Machine";
  add_precision(app, o.precision)->group(group);
  add_device(app, o.device)->group(group);
  app.add_option("--threads", o.threads, "Compute threads; 0: all cores")->group(group)->capture_default_str()->check(within(0, 1024));
  app.add_flag("--grad-checkpointing", o.grad_checkpointing, "Recompute Transformer blocks in backward")->group(group);
  app.add_flag("--recompute-cheap", o.recompute_cheap, "Recompute normalised rows and activations in backward: a fifth less to keep")
      ->group(group);
  app.add_flag("--update-in-backward", o.update_in_backward,
               "Update each parameter as soon as its gradient is there, which is then let go: a quarter less for the model. Not with "
               "--grad-clip-norm, --on-nonfinite skip, --accum-freq, --max-chunk, --memory-limit, --async-step or --precision amp")
      ->group(group);
  app.add_flag("!--no-weight-copies", o.weight_copies, "With amp_bf16: products round the weights themselves (slower, the same numbers)")
      ->group(group);
  app.add_option("--memory-limit", o.memory_limit,
                 "Bytes (also 8G, 0.5G, 512M) of tensor memory: --max-chunk is chosen so that a step stays below; 0: none")
      ->group(group)
      ->transform(bytes_of_size())
      ->check(at_least(0));
  app.add_option("--prefetch-batches", o.prefetch_batches,
                 "On a card: batches copied there ahead of their step, from pinned memory, on a stream of their own; 0: none")
      ->group(group)
      ->capture_default_str()
      ->check(at_least(0));
  app.add_flag("--device-transforms", o.device_transforms, "On a card: crop, resize, flip and colour there; with --prefetch-batches")
      ->group(group);
  app.add_flag("--async-step", o.async_step, "On a card: queue the next step before the last has said its loss (the same numbers)")
      ->group(group);
  app.add_flag("--cuda-graphs", o.cuda_graphs,
               "On a card: record steps of the same size and queue them as one (other roundings); with --async-step and --prefetch-batches")
      ->group(group);
  app.add_flag("!--no-stream-loss", o.stream_loss, "All logits in memory instead of tiles (slower, the same numbers)")->group(group);
  app.add_flag("!--no-pack-captions", o.pack_captions, "Compute padding too (slower, the same numbers)")->group(group);
  app.add_flag("!--no-prune-last-block", o.prune_last_block, "Compute all of the last block (slower, the same numbers)")->group(group);
  app.add_flag("!--no-encode-equal-once", o.encode_equal_once, "Encode equal captions again and again (slower, the same numbers)")
      ->group(group);
}

void add_output_flags(CLI::App& app, TrainOptions& o) {
  const char* group = "Output";
  app.add_option("--logs", o.logs, "Folder of runs")->group(group)->capture_default_str();
  app.add_option("--name", o.name, "Folder of this run; made from time and model when not given")->group(group);
  app.add_option(
         "--resume", o.resume,
         "latest (with --name; without a checkpoint yet the run begins), or the path of a checkpoint folder (what follows goes to --name): "
         "continue exactly. Flags that are not given are as the run has them; another --epochs makes it longer, a finished one, too, or "
         "shorter")
      ->group(group);
  app.add_option("--save-frequency", o.save_frequency, "Epochs between checkpoints; the last step has one in any case; 0: no other")
      ->group(group)
      ->capture_default_str()
      ->check(at_least(0));
  app.add_option("--save-every-steps", o.save_every_steps, "Steps between checkpoints; 0: none")
      ->group(group)
      ->capture_default_str()
      ->check(at_least(0));
  app.add_option("--keep-last", o.keep_last, "Checkpoints kept")->group(group)->capture_default_str()->check(at_least(1));
  app.add_option("--save-best", o.save_best,
                 "Keep the checkpoint that is best by this metric of the evaluation (image_to_text_R@1, clip_val_loss, ...), and write its "
                 "model to best/")
      ->group(group);
  app.add_flag_callback(
         "--save-most-recent", [] {}, "As open_clip; the newest checkpoint is always kept")
      ->group(group);
  app.add_flag_callback(
         "--delete-previous-checkpoint", [&o] { o.keep_last = 1; }, "As open_clip; the same as --keep-last 1")
      ->group(group);
  app.add_flag("!--no-async-save", o.async_save, "Wait for checkpoints to be written (less memory, the same files)")->group(group);
  app.add_option("--report-to", o.report_to, "tensorboard: event files in LOGS/NAME/tensorboard")
      ->group(group)
      ->check(CLI::IsMember({"tensorboard"}));
  app.add_option("--report-seconds", o.report_seconds, "Between two states of report.html; 0: only at the end")
      ->group(group)
      ->capture_default_str()
      ->check(at_least(0));
  app.add_option("--val-frequency", o.val_frequency, "Epochs between evaluations")->group(group)->capture_default_str()->check(at_least(0));
  app.add_option("--log-every-n-steps", o.log_every_n_steps, "Steps between lines of the log and of metrics.jsonl")
      ->group(group)
      ->capture_default_str()
      ->check(at_least(1));
}

// Flags that are not given are as the run has them that goes on.
void take_from_run(CLI::App& app, TrainOptions& o) {
  o = options_to_resume(o);
  for (CLI::Option* option : app.get_options()) {
    if (option->count() > 0) option->run_callback();
  }
}

// Flags that another one would make do something are said to do nothing: the run would be another than was meant.
void note_idle_flags(const CLI::App& app, const TrainOptions& o) {
  const auto note = [&](const char* flag, bool is_idle, const char* missing) {
    if (is_idle && app.count(flag) > 0) std::fprintf(stderr, "note: %s changes nothing without %s\n", flag, missing);
  };
  const bool jitters = o.color_jitter_prob > 0.0, cools = o.lr_scheduler == "const-cooldown";
  note("--color-jitter", !jitters, "--color-jitter-prob");
  note("--color-jitter-prob", o.color_jitter.empty() && jitters, "--color-jitter");
  note("--sharpness-prob", o.sharpness.empty() && o.sharpness_prob > 0.0, "--sharpness");
  note("--lock-image-unlocked-groups", !o.lock_image, "--lock-image");
  note("--lock-image-freeze-bn-stats", !o.lock_image, "--lock-image");
  note("--lock-text-unlocked-layers", !o.lock_text, "--lock-text");
  for (const char* flag : {"--epochs-cooldown", "--lr-cooldown-end", "--lr-cooldown-power"})
    note(flag, !cools, "--lr-scheduler const-cooldown");
}

}  // namespace

Action add_train(CLI::App& app) {
  auto options = std::make_shared<TrainOptions>();
  auto json = std::make_shared<bool>(false);
  add_data_flags(app, *options);
  add_augmentation_flags(app, *options);
  add_model_flags(app, *options);
  add_optimizer_flags(app, *options);
  add_machine_flags(app, *options);
  add_output_flags(app, *options);
  app.add_flag("--json", *json, "One JSON document on stdout");
  app.footer(
      "Most runs need no more than --train-data, --val-data, --model or --pretrained, --batch-size, --epochs, --lr, --precision and "
      "--name.\n"
      "Examples:\n"
      "  twinlens train --train-data 'shards/{000..099}.tar' --model ViT-B-32 --batch-size 256 --precision amp_bf16\n"
      "  twinlens train --train-data pictures/ --model my_model.json --epochs 50 --name first --val-data held_out/\n"
      "  twinlens train --train-data pairs.csv --val-data held_out.csv --pretrained ViT-B-32.pt --lr 1e-5 --epochs 5 --name tuned\n"
      "  twinlens train --name first --resume latest");
  return [&app, options, json] {
    if (!options->resume.empty()) take_from_run(app, *options);
    if (options->train_data.empty()) {
      const bool is_given = app.get_option("--train-data")->count() > 0;
      const std::string where = options->resume.empty() ? "" : ": the run that --resume names has no params.json to take it from";
      return wrong_usage(is_given ? "--train-data needs a value, and the one given is empty" : "--train-data is required" + where, "train");
    }
    note_idle_flags(app, *options);
    const TrainResult result = train(*options, &stop_requested());
    if (*json) {
      print_json(nlohmann::ordered_json{
          {"run_folder", result.run_folder}, {"steps", result.steps}, {"loss", result.last_loss}, {"stopped_early", result.stopped_early}});
    }
    return 0;
  };
}

}  // namespace twinlens::program
