// The same seed gives the same bytes: from run to run, for any number of compute threads and loader workers, and across a stop.

#include <atomic>
#include <catch2/catch.hpp>
#include <filesystem>
#include <nlohmann/json.hpp>
#include <set>
#include <sstream>
#include <thread>

#include "tests/support/restored_threads.h"
#include "tests/support/temporary_folder.h"
#include "tests/support/toy_data.h"
#include "tests/support/toy_training.h"

#include "twinlens/clip/loader.h"
#include "twinlens/clip/trainer.h"
#include "twinlens/core/file.h"
#include "twinlens/kernels/error.h"

namespace twinlens::test {
namespace {

namespace fs = std::filesystem;

// 26 pairs in batches of 8: 3 steps an epoch, 2 pairs left out; every augmentation and the averaged weights on.
TrainOptions options_in(const TemporaryFolder& folder, const std::string& config, const std::vector<ToyPair>& pairs = toy_pairs(26)) {
  TrainOptions o = toy_training(folder, pairs, config);
  o.batch_size = 8;
  o.epochs = 3;
  o.lr = 1e-2;
  o.warmup = 2;
  o.seed = 5;
  o.threads = 1;
  o.ema = 0.9;
  o.aug_scale = {0.4, 1.0};
  o.flip = true;
  o.color_jitter = {0.4, 0.4, 0.4, 0.1};
  o.color_jitter_prob = 0.8;
  o.gray_scale_prob = 0.2;
  o.affine = {15.0, 0.1, 0.8, 1.2};
  o.grad_clip_norm = 1.0;
  o.log_every_n_steps = 1;
  o.save_frequency = 0;
  return o;
}

TrainResult train_as(TrainOptions o, const std::string& name, const std::atomic<bool>* stop = nullptr) {
  o.name = name;
  return train(o, stop);
}

void check_equal_files(const fs::path& a, const fs::path& b) {
  INFO(a.string() << " and " << b.string());
  const std::string first = read_file(a.string());
  CHECK(first.size() > 1000);
  CHECK(first == read_file(b.string()));
}

// Weights, moments, averages and the exported model.
void check_equal_runs(const TrainOptions& o, const std::string& a, const std::string& b, std::int64_t step) {
  const fs::path logs = o.logs, checkpoint = fs::path("checkpoints") / ("step_" + std::to_string(step));
  for (const fs::path& file : {checkpoint / "model.safetensors", checkpoint / "optimizer.safetensors", checkpoint / "state.json",
                               fs::path("model") / "open_clip_model.safetensors"}) {
    check_equal_files(logs / a / file, logs / b / file);
  }
}

// Loss and gradient norm of every step, as they were written.
std::string curve(const TrainOptions& o, const std::string& name) {
  std::istringstream lines(read_file((fs::path(o.logs) / name / "metrics.jsonl").string()));
  std::string line, out;
  while (std::getline(lines, line)) {
    const auto json = nlohmann::json::parse(line);
    if (json.contains("loss")) out += json["step"].dump() + " " + json["loss"].dump() + " " + json["grad_norm"].dump() + "\n";
  }
  return out;
}

// Raises a stop flag when the checkpoints folder of a run gets its first entry.
class StopAtFirstSave {
 public:
  explicit StopAtFirstSave(const fs::path& checkpoints)
      : thread_([this, checkpoints] {
          while (!done.load() && !fs::exists(checkpoints / "latest")) std::this_thread::sleep_for(std::chrono::milliseconds(1));
          stop.store(true);
        }) {}
  ~StopAtFirstSave() {
    done.store(true);
    thread_.join();
  }
  std::atomic<bool> stop{false}, done{false};

 private:
  std::thread thread_;
};

TEST_CASE("updates in backward and recomputed activations give the same run", "[train]") {
  const RestoredThreads restored;
  const TemporaryFolder folder;
  TrainOptions o = options_in(folder, toy_vit_json());
  o.grad_clip_norm = 0.0;
  train_as(o, "plain");
  o.update_in_backward = o.recompute_cheap = true;
  train_as(o, "lean");
  check_equal_runs(o, "plain", "lean", 9);
  o.grad_checkpointing = true;
  train_as(o, "leaner");
  check_equal_runs(o, "plain", "leaner", 9);
  o.on_nonfinite = "skip";
  CHECK_THROWS_WITH(train_as(o, "refused"), Catch::Contains("--on-nonfinite skip") && Catch::Contains("--update-in-backward"));
  o.on_nonfinite = "stop";
  o.grad_clip_norm = 1.0;
  CHECK_THROWS_WITH(train_as(o, "refused"), Catch::Contains("--grad-clip-norm") && Catch::Contains("--update-in-backward"));
}

TEST_CASE("updates in backward and products that round the weights themselves give the same run in bf16", "[train]") {
  const RestoredThreads restored;
  const TemporaryFolder folder;
  const bool resnet = GENERATE(false, true);
  INFO((resnet ? "ResNet" : "ViT"));
  TrainOptions o = options_in(folder, resnet ? toy_resnet_json() : toy_vit_json());
  o.grad_clip_norm = 0.0;
  o.precision = "amp_bf16";
  train_as(o, "plain");
  o.weight_copies = false;
  train_as(o, "no_copies");
  check_equal_runs(o, "plain", "no_copies", 9);
  CHECK(curve(o, "plain") == curve(o, "no_copies"));
  o.update_in_backward = true;
  train_as(o, "neither");
  check_equal_runs(o, "plain", "neither", 9);
  o.weight_copies = true;
  train_as(o, "in_backward");
  check_equal_runs(o, "plain", "in_backward", 9);
}

TEST_CASE("the same seed gives the same bytes for any number of threads and workers", "[train]") {
  const RestoredThreads restored;
  const TemporaryFolder folder;
  const bool resnet = GENERATE(false, true);
  INFO((resnet ? "ResNet" : "ViT"));
  TrainOptions o = options_in(folder, resnet ? toy_resnet_json() : toy_vit_json());
  CHECK(train_as(o, "first").steps == 9);
  train_as(o, "again");
  check_equal_runs(o, "first", "again", 9);
  o.threads = 2;
  o.workers = 3;
  train_as(o, "wide");
  check_equal_runs(o, "first", "wide", 9);
  CHECK(curve(o, "first") == curve(o, "wide"));
  o.seed = 6;
  train_as(o, "other");
  CHECK(curve(o, "first") != curve(o, "other"));
}

TEST_CASE("bf16, accumulation and captions kept apart give the same bytes too", "[train]") {
  const RestoredThreads restored;
  const TemporaryFolder folder;
  TrainOptions o = options_in(folder, toy_vit_json());
  o.precision = "amp_bf16";
  o.batch_size = 4;
  o.accum_freq = 2;
  o.equal_captions = "apart";
  train_as(o, "first");
  o.threads = 2;
  o.workers = 3;
  train_as(o, "wide");
  check_equal_runs(o, "first", "wide", 9);
}

TEST_CASE("a stopped run that is resumed ends with the bytes of one that was not", "[train]") {
  const RestoredThreads restored;
  const TemporaryFolder folder;
  TrainOptions o = options_in(folder, GENERATE(false, true) ? toy_resnet_json() : toy_vit_json());
  train_as(o, "whole");

  // Stopped by the flag inside of an epoch (after 1 of 9 steps), resumed with other threads and workers.
  const std::atomic<bool> now{true};
  const TrainResult stopped = train_as(o, "stopped", &now);
  CHECK(stopped.stopped_early);
  CHECK(stopped.steps == 1);
  o.resume = "latest";
  o.threads = 2;
  o.workers = 3;
  CHECK(train_as(o, "stopped").steps == 9);
  check_equal_runs(o, "whole", "stopped", 9);
  CHECK(curve(o, "whole") == curve(o, "stopped"));

  // Stopped whenever the flag comes, with checkpoints every other step, twice.
  o.resume.clear();
  o.save_every_steps = 2;
  {
    StopAtFirstSave stop(fs::path(o.logs) / "twice" / "checkpoints");
    train_as(o, "twice", &stop.stop);
  }
  o.resume = "latest";
  train_as(o, "twice", &now);
  train_as(o, "twice");
  check_equal_runs(o, "whole", "twice", 9);
  CHECK(curve(o, "whole") == curve(o, "twice"));
}

TEST_CASE("captions kept apart: epochs of different lengths do not disturb a resumed run", "[train]") {
  const RestoredThreads restored;
  const TemporaryFolder folder;
  // Captions that stand often: how many batches of different captions there are depends on the order.
  std::vector<ToyPair> pairs = toy_pairs(26);
  for (std::size_t i = 0; i < pairs.size(); ++i) pairs[i].caption = "caption " + std::to_string(i < 16 ? i % 4 : i);
  TrainOptions o = options_in(folder, toy_vit_json(), pairs);
  o.batch_size = 6;
  o.epochs = 6;
  o.equal_captions = "apart";
  o.save_every_steps = 1;
  o.keep_last = 100;
  const auto data = open_dataset(o.train_data);
  std::set<std::size_t> sizes;
  for (std::int64_t epoch = 0; epoch < 6; ++epoch) sizes.insert(epoch_order(*data, 6, o.seed, epoch, true).size());
  REQUIRE(sizes.size() > 1);
  const std::int64_t steps = train_as(o, "whole").steps;
  const std::string whole = curve(o, "whole");
  for (const std::int64_t at : {steps / 2, steps - 3}) {
    INFO("resumed at step " << at);
    o.resume = (fs::path(o.logs) / "whole" / "checkpoints" / ("step_" + std::to_string(at))).string();
    const std::string name = "from_" + std::to_string(at);
    train_as(o, name);
    check_equal_runs(o, "whole", name, steps);
  }
}

TEST_CASE("a checkpoint that was cut short is passed over for the one before", "[train]") {
  const RestoredThreads restored;
  const TemporaryFolder folder;
  TrainOptions o = options_in(folder, toy_vit_json());
  o.save_every_steps = 3;
  train_as(o, "whole");
  train_as(o, "hurt");
  const fs::path checkpoints = fs::path(o.logs) / "hurt" / "checkpoints";
  const std::string victim = GENERATE("model.safetensors", "optimizer.safetensors", "state.json");
  INFO(victim);
  fs::resize_file(checkpoints / "step_9" / victim, fs::file_size(checkpoints / "step_9" / victim) / 2);
  // What a process that was killed while saving leaves behind.
  fs::create_directory(checkpoints / "tmp_7");
  write_text((checkpoints / "tmp_7" / "model.safetensors.tmp-1-0").string(), "half");
  o.resume = "latest";
  CHECK(train_as(o, "hurt").steps == 9);
  check_equal_runs(o, "whole", "hurt", 9);
  CHECK_FALSE(fs::exists(checkpoints / "tmp_7"));
}

TEST_CASE("a resumed run refuses other settings, other data and a name that is taken", "[train]") {
  const RestoredThreads restored;
  const TemporaryFolder folder;
  TrainOptions o = options_in(folder, toy_vit_json());
  const std::atomic<bool> now{true};
  train_as(o, "run", &now);
  CHECK_THROWS_WITH(train_as(o, "run"), Catch::Contains("run 'run' exists already") && Catch::Contains("--resume latest"));
  o.resume = "latest";
  // Without a checkpoint `latest` begins: a job's first launch has the flags of its later ones.
  train_as(o, "first launch");
  o.resume.clear();
  train_as(o, "plain");
  check_equal_runs(o, "plain", "first launch", 9);
  o.resume = "latest";
  TrainOptions other = o;
  other.lr = 2e-2;
  CHECK_THROWS_WITH(train_as(other, "run"), Catch::Contains("'lr' was 0.01 and is now 0.02"));
  other = o;
  other.beta2 = 0.5;
  CHECK_THROWS_WITH(train_as(other, "run"), Catch::Contains("'beta2' was 0.98 and is now 0.5"));
  other = o;
  other.fast_decode = true;
  CHECK_THROWS_WITH(train_as(other, "run"), Catch::Contains("'fast_decode' was unset and is now true"));
  other.resume.clear();
  train_as(other, "fast", &now);
  CHECK_THROWS_WITH(train_as(o, "fast"), Catch::Contains("'fast_decode' was true and is now unset"));
  write_toy_folder(folder / "data", toy_pairs(27));
  CHECK_THROWS_WITH(train_as(o, "run"), Catch::Contains("the training data has changed"));
}

}  // namespace
}  // namespace twinlens::test
