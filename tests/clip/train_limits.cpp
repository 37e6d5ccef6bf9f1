// TrainOptions that make no sense are refused before anything is read or written.

#include <catch2/catch.hpp>
#include <cmath>
#include <functional>

#include "twinlens/clip/dataset.h"
#include "twinlens/clip/trainer.h"
#include "twinlens/kernels/error.h"

namespace twinlens::test {
namespace {

using Catch::Contains;

struct Wrong {
  const char* flag;
  std::function<void(TrainOptions&)> set;
};

TEST_CASE("options of a training run that make no sense are refused first", "[train]") {
  const double nan = std::nan("");
  const std::vector<Wrong> all{
      {"batch-size", [](TrainOptions& o) { o.batch_size = 0; }},
      {"batch-size", [](TrainOptions& o) { o.batch_size = INT64_MAX; }},
      {"accum-freq", [](TrainOptions& o) { o.accum_freq = 0; }},
      {"epochs", [](TrainOptions& o) { o.epochs = -1; }},
      {"log-every-n-steps", [](TrainOptions& o) { o.log_every_n_steps = 0; }},
      {"keep-last", [](TrainOptions& o) { o.keep_last = 0; }},
      {"workers", [](TrainOptions& o) { o.workers = 100'000; }},
      {"workers", [](TrainOptions& o) { o.workers = -1; }},
      {"threads", [](TrainOptions& o) { o.threads = -1; }},
      {"lr", [](TrainOptions& o) { o.lr = -1e-3; }},
      {"lr", [nan](TrainOptions& o) { o.lr = nan; }},
      {"wd", [](TrainOptions& o) { o.wd = -0.1; }},
      {"beta1", [](TrainOptions& o) { o.beta1 = 1.0; }},
      {"beta2", [nan](TrainOptions& o) { o.beta2 = nan; }},
      {"eps", [](TrainOptions& o) { o.eps = 0.0; }},
      {"ema", [](TrainOptions& o) { o.ema = 1.0; }},
      {"max-skipped", [nan](TrainOptions& o) { o.max_skipped = nan; }},
      {"force-patch-dropout", [nan](TrainOptions& o) { o.force_patch_dropout = nan; }},
      {"epochs-cooldown", [](TrainOptions& o) { o.epochs_cooldown = 33; }},
      {"epochs-cooldown", [](TrainOptions& o) { o.lr_scheduler = "const-cooldown"; }},
      {"max-chunk", [](TrainOptions& o) { o.max_chunk = -1; }},
      {"memory-limit", [](TrainOptions& o) { o.memory_limit = -1; }},
      {"aug-scale",
       [](TrainOptions& o) {
         o.aug_scale = {1.0, 0.9};
       }},
      {"aug-scale", [](TrainOptions& o) { o.aug_scale = {0.5}; }},
      {"color-jitter",
       [](TrainOptions& o) {
         o.color_jitter = {0.1, 0.1};
       }},
      {"sharpness",
       [](TrainOptions& o) {
         o.sharpness = {2.0, 1.0};
       }},
      {"affine",
       [](TrainOptions& o) {
         o.affine = {5, 0.1, 1.2, 0.8};
       }},
      {"affine",
       [nan](TrainOptions& o) {
         o.affine = {5, 0.1, nan, 1.0};
       }},
      {"save-best", [](TrainOptions& o) { o.save_best = "image_to_text_R@2"; }},
      {"save-best", [](TrainOptions& o) { o.save_best = "num_images"; }},
      {"save-best",
       [](TrainOptions& o) {
         o.save_best = "clip_val_loss";
         o.val_frequency = 0;
       }},
      {"equal-captions", [](TrainOptions& o) { o.equal_captions = "x"; }},
      {"on-nonfinite", [](TrainOptions& o) { o.on_nonfinite = "x"; }},
      {"captions", [](TrainOptions& o) { o.captions = "x"; }},
      {"compressed-shards", [](TrainOptions& o) { o.compressed_shards = "x"; }},
  };
  for (const Wrong& wrong : all) {
    TrainOptions o;
    o.train_data = o.val_data = "nowhere";
    wrong.set(o);
    INFO(wrong.flag);
    CHECK_THROWS_AS(train(o), UsageError);
    CHECK_THROWS_WITH(train(o), Contains(std::string("; --") + wrong.flag + "; "));
  }
  for (const char* name : {"..", ".", "../other", "a/../..", "/tmp/elsewhere"}) {
    TrainOptions o;
    o.train_data = "nowhere";
    o.name = name;
    CHECK_THROWS_WITH(train(o), Contains("is no folder below the logs; --name; "));
  }
  TrainOptions right;
  right.train_data = right.val_data = "nowhere";
  for (const char* metric : {"", "clip_val_loss", "text_to_image_R@5", "image_to_text_median_rank"}) {
    right.save_best = metric;
    CHECK_THROWS_WITH(train(right), Contains("data does not exist"));
  }
}

TEST_CASE("a schedule that is unknown is refused before the data is opened", "[train]") {
  TrainOptions o;
  o.train_data = "nowhere";
  o.lr_scheduler = "x";
  CHECK_THROWS_WITH(train(o), Contains("unknown schedule 'x'; --lr-scheduler; "));
}

TEST_CASE("unknown words are refused for every kind of data", "[data]") {
  DatasetOptions captions, form;
  captions.captions = form.compressed = "x";
  for (const char* place : {TWINLENS_SOURCE_DIR, "nowhere.csv", "nowhere.tar"}) {
    CHECK_THROWS_WITH(open_dataset(place, captions), Contains("unknown policy 'x'; --captions; use first, random or all"));
    CHECK_THROWS_WITH(open_dataset(place, form), Contains("unknown form 'x'; --compressed-shards; use auto, unpack or stream"));
  }
}

}  // namespace
}  // namespace twinlens::test
