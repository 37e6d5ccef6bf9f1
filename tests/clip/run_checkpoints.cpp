// Checkpoints: checked, kept, written in the background.

#include <algorithm>
#include <catch2/catch.hpp>
#include <chrono>
#include <cmath>
#include <filesystem>
#include <nlohmann/json.hpp>
#include <set>
#include <sstream>

#include "clip/src/checkpoint.h"
#include "clip/src/run_lock.h"
#include "tests/support/temporary_folder.h"
#include "tests/support/toy_data.h"
#include "tests/support/toy_training.h"

#include "twinlens/clip/evaluation.h"
#include "twinlens/clip/pretrained.h"
#include "twinlens/clip/tokenizer_files.h"
#include "twinlens/clip/trainer.h"
#include "twinlens/core/file.h"
#include "twinlens/kernels/error.h"

namespace twinlens::test {
namespace {

namespace fs = std::filesystem;
using Catch::Contains;

struct Parts {
  explicit Parts(const std::string& json, const TemporaryFolder& folder)
      : model(
            [&] {
              write_text(folder / "model.json", json);
              return find_model_config(folder / "model.json");
            }(),
            1) {}
  Clip model;
  FlatParameters parameters{collect(model), false};
  Ema ema{parameters, 0.9};
};

TrainOptions options_in(const TemporaryFolder& folder) {
  TrainOptions o = toy_training(folder, toy_pairs(16));
  o.batch_size = 8;
  o.epochs = 4;
  o.lr = 1e-2;
  o.threads = 1;
  o.log_every_n_steps = 1;
  return o;
}

std::vector<std::string> names_in(const fs::path& folder) {
  std::vector<std::string> out;
  for (const auto& entry : fs::directory_iterator(folder)) out.push_back(entry.path().filename().string());
  std::sort(out.begin(), out.end());
  return out;
}

TEST_CASE("a checkpoint with any byte changed, missing or added is refused", "[checkpoint]") {
  const TemporaryFolder folder;
  Parts parts(toy_vit_json(), folder);
  TrainState state;
  state.step = 7;
  CheckpointWriter writer(folder / "c", 3, false);
  writer.save(state, parts.model, parts.parameters, &parts.ema);
  CHECK(writer.written() == 7);
  const fs::path checkpoint = folder / "c/step_7";
  CHECK(check_checkpoint(checkpoint).step == 7);
  for (const char* name : {"model.safetensors", "optimizer.safetensors", "state.json", "checksums.json"}) {
    INFO(name);
    const std::string path = (checkpoint / name).string(), good = read_file(path);
    for (const double where : {0.0, 0.3, 0.7, 0.999}) {
      std::string bad = good;
      char& byte = bad[static_cast<std::size_t>(where * static_cast<double>(good.size()))];
      byte = static_cast<char>(byte ^ 1);
      write_text(path, bad);
      // (In checksums.json blanks may change without harm.)
      if (std::string(name) == "checksums.json" && nlohmann::json::parse(bad, nullptr, false) == nlohmann::json::parse(good)) continue;
      CHECK_THROWS_AS(check_checkpoint(checkpoint), FileError);
    }
    write_text(path, good + " ");
    if (std::string(name) != "checksums.json") CHECK_THROWS_WITH(check_checkpoint(checkpoint), Contains(name) && Contains("is damaged"));
    fs::remove(path);
    CHECK_THROWS_AS(check_checkpoint(checkpoint), FileError);
    write_text(path, good);
  }
  CHECK(check_checkpoint(checkpoint).step == 7);
  load_tensors(checkpoint, parts.model, parts.parameters, &parts.ema);
}

TEST_CASE("a checkpoint that is written in the background has the bytes of the moment it was asked for", "[checkpoint]") {
  const TemporaryFolder folder;
  Parts parts(toy_vit_json(), folder);
  CheckpointWriter plain(folder / "plain", 9, false), background(folder / "background", 9, true);
  for (std::int64_t step = 1; step <= 4; ++step) {
    TrainState state;
    state.step = step;
    parts.parameters.values.fill_(static_cast<double>(step));
    plain.save(state, parts.model, parts.parameters, &parts.ema);
    background.save(state, parts.model, parts.parameters, &parts.ema);  // waits for the one before
    parts.parameters.values.fill_(-1.0);                                // training goes on
  }
  background.wait();
  CHECK(background.written() == 4);
  for (int step = 1; step <= 4; ++step) {
    for (const char* name : {"model.safetensors", "optimizer.safetensors", "state.json", "checksums.json"}) {
      const std::string file = "/step_" + std::to_string(step) + "/" + name;
      CHECK(read_file(folder / ("plain" + file)) == read_file(folder / ("background" + file)));
    }
  }
  CHECK(read_file(folder / "background/latest") == "step_4\n");
}

TEST_CASE("what goes wrong while writing in the background comes out at the next step, and the old checkpoint stays", "[checkpoint]") {
  const TemporaryFolder folder;
  Parts parts(toy_vit_json(), folder);
  CheckpointWriter writer(folder / "c", 1, true);
  TrainState state;
  state.step = 1;
  writer.save(state, parts.model, parts.parameters, nullptr);
  writer.wait();
  const std::string before = read_file(folder / "c/step_1/model.safetensors");
  state.step = 2;
  fs::remove_all(folder / "c/latest");
  fs::create_directories(folder / "c/latest/in the way");
  writer.save(state, parts.model, parts.parameters, nullptr);
  CHECK_THROWS_AS(writer.wait(), FileError);
  writer.poll();  // said once
  CHECK(writer.written() == 1);
  CHECK(read_file(folder / "c/step_1/model.safetensors") == before);
}

TEST_CASE("a run that is resumed from an older checkpoint keeps what it writes", "[checkpoint]") {
  const TemporaryFolder folder;
  Parts parts(toy_vit_json(), folder);
  CheckpointWriter writer(folder / "c", 2, false);
  const auto save = [&](std::int64_t step) {
    TrainState state;
    state.step = step;
    writer.save(state, parts.model, parts.parameters, nullptr);
  };
  fs::create_directories(folder / "c/step_99999999999999999999");  // no number of a step
  for (const std::int64_t step : {10, 20, 30}) save(step);
  move_abandoned(folder / "c", 25);
  CHECK(read_file(folder / "c/latest") == "step_20\n");
  CHECK(names_in(folder / "c/abandoned") == std::vector<std::string>{"step_30"});
  save(12);
  save(14);
  CHECK(read_file(folder / "c/latest") == "step_14\n");
  CHECK(names_in(folder / "c") == std::vector<std::string>{"abandoned", "latest", "step_12", "step_14", "step_99999999999999999999"});
  CHECK(names_in(folder / "c/abandoned") == std::vector<std::string>{"step_20", "step_30"});

  TrainOptions o = options_in(folder);
  o.save_every_steps = 1;
  o.keep_last = 100;
  train(o);
  o.resume = folder / "logs/run/checkpoints/step_3";
  o.keep_last = 2;
  train(o);
  const std::string checkpoints = folder / "logs/run/checkpoints";
  CHECK(names_in(checkpoints) == std::vector<std::string>{"abandoned", "latest", "step_7", "step_8"});
  CHECK(names_in(checkpoints + "/abandoned") == std::vector<std::string>{"step_4", "step_5", "step_6", "step_7", "step_8"});
  o.resume = "latest";
  CHECK(std::isnan(train(o).last_loss));  // nothing was left to do
}

TEST_CASE("a resumed run that is refused leaves the metrics as they were", "[checkpoint]") {
  const TemporaryFolder folder;
  TrainOptions o = options_in(folder);
  o.save_every_steps = 1;
  o.keep_last = 100;
  train(o);
  const std::string metrics = folder / "logs/run/metrics.jsonl", before = read_file(metrics);
  o.resume = folder / "logs/run/checkpoints/step_3";
  o.memory_limit = 1;
  CHECK_THROWS_WITH(train(o), Contains("--memory-limit") && Contains("too small"));
  CHECK(std::count(before.begin(), before.end(), '\n') == 8);
  CHECK(read_file(metrics) == before);
}

TEST_CASE("a run folder has one process at a time", "[train]") {
  const TemporaryFolder folder;
  TrainOptions o = options_in(folder);
  train(o);
  {
    const RunLock lock(folder / "logs/run");
    o.resume = "latest";
    CHECK_THROWS_WITH(train(o), Contains("another process is training in this run folder") && Contains("--name"));
  }
  CHECK(train(o).steps == 8);
}

TEST_CASE("the validation loss of an averaged model is that of model/", "[train]") {
  const TemporaryFolder folder;
  TrainOptions o = options_in(folder);
  o.val_data = o.train_data;
  o.ema = 0.9;
  train(o);
  double logged = std::nan("");
  std::istringstream lines(read_file(folder / "logs/run/metrics.jsonl"));
  for (std::string line; std::getline(lines, line);) logged = nlohmann::json::parse(line).value("clip_val_loss", logged);
  const auto model = load_model(folder / "logs/run/model");
  EmbedOptions embed;
  embed.batch_size = 8;
  const EmbeddedDataset e = embed_dataset(*model, *tokenizer_of(model->config), *open_dataset(o.val_data), embed);
  CHECK(validation_loss(e, model->logit_scale.value) == Approx(logged).epsilon(1e-6));
}

TEST_CASE("bad pictures of the validation data are said and listed, and do not count for --max-skipped", "[train]") {
  const TemporaryFolder folder;
  TrainOptions o = options_in(folder);
  write_toy_folder(folder / "val", toy_pairs(6));
  write_text(folder / "val/03.png", "no picture");
  o.val_data = folder / "val";
  train(o);
  CHECK_THAT(read_file(folder / "logs/run/out.log"), Contains("1 of the validation data cannot be used, first: 03.png"));
  CHECK_THAT(read_file(folder / "logs/run/skipped.tsv"), Contains("03.png\tvalidation: "));
  fs::remove_all(folder / "logs/run/checkpoints/step_8");
  o.resume = "latest";
  o.max_skipped = 0.0;
  CHECK(train(o).steps == 8);
}

TEST_CASE("validation on folders of classes is zero-shot classification", "[train]") {
  const TemporaryFolder folder;
  TrainOptions o = options_in(folder);
  o.save_best = "zeroshot_top1";
  o.val_data = o.train_data;
  CHECK_THROWS_WITH(train(o), Contains("zeroshot_top1 is measured on folders of classes; --save-best"));
  const auto pairs = toy_pairs(12);
  for (std::size_t i = 0; i < pairs.size(); ++i) {
    const std::string of_class = folder / ("classes/" + std::string(i % 3 == 0 ? "red" : "blue"));
    fs::create_directories(of_class);
    write_text(of_class + "/" + pairs[i].name + ".png", pairs[i].png);
  }
  o.val_data = folder / "classes";
  o.lr = 0.0;
  train(o);
  nlohmann::json last;
  std::istringstream lines(read_file(folder / "logs/run/metrics.jsonl"));
  for (std::string line; std::getline(lines, line);) {
    const auto json = nlohmann::json::parse(line);
    if (json.contains("zeroshot_top1")) last = json;
  }
  REQUIRE(last.contains("zeroshot_top5"));
  EmbedOptions embed;
  embed.batch_size = 8;
  const auto model = load_model(folder / "logs/run/model");
  const EmbeddedDataset e = embed_dataset(*model, *tokenizer_of(model->config), *open_dataset(o.val_data), embed);
  const Classification expected = classification_metrics(e.images, e.texts, e.caption_of);
  CHECK(expected.classes == 2);
  CHECK(last["zeroshot_top1"] == expected.top1);
  CHECK(last["zeroshot_top5"] == 1.0);
  CHECK(fs::exists(folder / "logs/run/best/open_clip_model.safetensors"));
}

TEST_CASE("what is skipped is counted once, however often the run is resumed", "[train]") {
  const TemporaryFolder folder;
  TrainOptions o = options_in(folder);
  write_text(folder / "data/lonely.png", toy_pairs(1)[0].png);  // without a caption
  write_text(folder / "data/03.png", "no picture");
  o.max_skipped = 2.5 / 17;
  o.save_every_steps = 1;
  o.epochs = 6;
  train(o);
  for (const char* last : {"step_12", "step_11"}) {
    for (const char* step : {"step_12", "step_11"}) {
      if (std::string(step) >= last) fs::remove_all(folder / ("logs/run/checkpoints/" + std::string(step)));
    }
    o.resume = "latest";
    CHECK(train(o).steps == 12);
  }
  const std::string skipped = read_file(folder / "logs/run/skipped.tsv");
  CHECK(std::count(skipped.begin(), skipped.end(), '\n') == 2);
}

TEST_CASE("the best checkpoint by a metric stays, beside the last ones; its model lies in best/", "[train]") {
  const TemporaryFolder folder;
  TrainOptions o = options_in(folder);
  o.val_data = o.train_data;
  o.save_best = GENERATE("clip_val_loss", "image_to_text_R@1");
  o.epochs = 6;
  o.lr = 0.3;  // too large on purpose: the last step is not the best
  o.lr_scheduler = "const";
  o.save_every_steps = 1;
  o.keep_last = 2;
  o.ema = 0.5;
  train(o);
  double best = std::nan("");
  std::int64_t best_step = -1;
  std::istringstream lines(read_file(folder / "logs/run/metrics.jsonl"));
  for (std::string line; std::getline(lines, line);) {
    const auto json = nlohmann::json::parse(line);
    if (!json.contains("clip_val_loss")) continue;
    const double value = json[o.save_best];
    if (best_step < 0 || (o.save_best == "clip_val_loss" ? value < best : value > best)) {
      best = value;
      best_step = json["step"];
    }
  }
  INFO(o.save_best << " " << best << " at step " << best_step);
  std::set<std::string> expected{"latest", "step_11", "step_12"};
  expected.insert("step_" + std::to_string(best_step));
  const auto names = names_in(folder / "logs/run/checkpoints");
  CHECK(std::set<std::string>(names.begin(), names.end()) == expected);
  const auto state = nlohmann::json::parse(read_file(folder / "logs/run/checkpoints/step_12/state.json"));
  CHECK(state["best_step"] == best_step);
  CHECK(state["best_value"].get<double>() == best);
  CHECK(fs::exists(folder / "logs/run/best/open_clip_model.safetensors"));
  if (best_step == 12)
    CHECK(read_file(folder / "logs/run/best/open_clip_model.safetensors") ==
          read_file(folder / "logs/run/model/open_clip_model.safetensors"));
  // Resumed from before the end, the same comes out.
  const std::string best_model = read_file(folder / "logs/run/best/open_clip_model.safetensors"),
                    metrics = read_file(folder / "logs/run/metrics.jsonl");
  fs::remove_all(folder / "logs/run/checkpoints/step_12");
  o.resume = "latest";
  train(o);
  CHECK(nlohmann::json::parse(read_file(folder / "logs/run/checkpoints/step_12/state.json"))["best_step"] == best_step);
  CHECK(read_file(folder / "logs/run/best/open_clip_model.safetensors") == best_model);
  const auto count = [](const std::string& text) { return std::count(text.begin(), text.end(), '\n'); };
  CHECK(count(read_file(folder / "logs/run/metrics.jsonl")) == count(metrics));
  o.save_best = "accuracy";
  o.resume.clear();
  o.name = "other";
  CHECK_THROWS_WITH(train(o), Contains("no metric 'accuracy'; --save-best") && Contains("clip_val_loss"));
  o.val_data.clear();
  o.name = "third";
  CHECK_THROWS_WITH(train(o), Contains("nothing is evaluated; --save-best"));
}

TEST_CASE("a run that was ended before its first checkpoint begins again with --resume latest", "[train]") {
  const TemporaryFolder folder;
  TrainOptions o = options_in(folder);
  train(o);
  const std::string weights = read_file(folder / "logs/run/model/open_clip_model.safetensors");
  fs::remove_all(folder / "logs/run/checkpoints");
  write_text(folder / "logs/run/report.html.tmp-1-0", "half");
  o.resume = "latest";
  CHECK_THROWS_WITH(train(o), Contains("has come to its end once and its checkpoints are gone") && Contains("--pretrained"));
  fs::remove_all(folder / "logs/run/model");
  CHECK(train(o).steps == 8);
  CHECK(read_file(folder / "logs/run/model/open_clip_model.safetensors") == weights);
  const std::string metrics = read_file(folder / "logs/run/metrics.jsonl");
  CHECK(std::count(metrics.begin(), metrics.end(), '\n') == 8);
  CHECK_FALSE(fs::exists(folder / "logs/run/report.html.tmp-1-0"));
}

TEST_CASE("a finished run goes on with more epochs, as if it had been to have them", "[train]") {
  const TemporaryFolder folder;
  TrainOptions o = options_in(folder);
  o.lr_scheduler = "const";
  o.epochs = 10;  // 20 steps, of which one is warmup
  o.val_data = o.train_data;
  train(o);
  o.resume = "latest";
  o.val_data.clear();
  o.epochs = 20;
  CHECK(train(o).steps == 40);
  const auto params = nlohmann::json::parse(read_file(folder / "logs/run/params.json"));
  CHECK(params["epochs"] == 20);
  CHECK(params["warmup"] == 1);  // not two
  CHECK(params["lr"] == 0.01);
  CHECK(params["flip"] == false);
  CHECK(params["aug-scale"] == std::vector<double>{0.9, 1.0});
  TrainOptions which;
  which.logs = o.logs;
  which.name = o.name;
  which.resume = "latest";
  CHECK(train(options_to_resume(which)).steps == 40);
  o.epochs = 19;
  CHECK_THROWS_WITH(train(o), Contains("resume: epoch 20 is begun and --epochs is 19; ") && Contains("step_40; give 20 or more"));
  o.epochs = 20;
  o.warmup = 2;
  CHECK_THROWS_WITH(train(o), Contains("resume: 'warmup' was 1 and is now 2; "));
  o.resume.clear();
  o.name = "whole";
  o.warmup = 1;
  train(o);
  CHECK(read_file(folder / "logs/run/model/open_clip_model.safetensors") ==
        read_file(folder / "logs/whole/model/open_clip_model.safetensors"));
}

TEST_CASE("a run whose tokenizer is not that of its checkpoint is not resumed", "[train]") {
  const TemporaryFolder folder;
  TrainOptions o = options_in(folder);
  BpeTrainer words;
  for (const ToyPair& pair : toy_pairs(16)) words.add(pair.caption);
  auto merges = words.train(520);
  REQUIRE(merges.size() == 6);
  write_bpe(folder.path(), merges);
  train(o);
  const std::string before = read_file(folder / "merges.txt");
  o.resume = "latest";
  CHECK(train(o).steps == 8);
  merges.pop_back();
  write_bpe(folder.path(), merges);
  const auto refused = [&](const std::string& what) {
    CHECK_THROWS_WITH(train(o), Contains("resume: the tokenizer has changed: " + what + "; ") && Contains("step_8; give the --model"));
  };
  refused("vocab.json is another");
  fs::remove(folder / "vocab.json");
  refused("vocab.json is not there any more");
  write_bpe(folder.path(), words.train(520));
  CHECK(read_file(folder / "merges.txt") == before);
  write_text(folder / "tokenizer_config.json", "{}");
  refused("tokenizer_config.json was not there");
  fs::remove(folder / "tokenizer_config.json");
  CHECK(train(o).steps == 8);
}

TEST_CASE("a checkpoint in the background holds the step up for a part of its writing", "[.full][timed]") {
  // A model of 20 million parameters: 240 MB a checkpoint. Measured is what save() takes of the thread that trains.
  const TemporaryFolder folder;
  Parts parts(R"({"embed_dim": 256, "vision_cfg": {"image_size": 64, "layers": 2, "width": 256, "head_width": 64, "patch_size": 8},
                  "text_cfg": {"context_length": 77, "vocab_size": 49408, "width": 384, "heads": 6, "layers": 2}})",
              folder);
  CheckpointWriter background(folder / "b", 2, true), plain(folder / "p", 2, false);
  background.reserve(parts.model, parts.parameters, nullptr);
  double held = 1e9, whole = 1e9;
  const auto seconds = [](auto work) {
    const auto start = std::chrono::steady_clock::now();
    work();
    return std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
  };
  TrainState state;
  for (int round = 0; round < 3; ++round) {
    ++state.step;
    held = std::min(held, seconds([&] { background.save(state, parts.model, parts.parameters, nullptr); }));
    background.wait();
    whole = std::min(whole, seconds([&] { plain.save(state, parts.model, parts.parameters, nullptr); }));
  }
  const auto count = static_cast<double>(parts.parameters.values.count());
  WARN(count / 1e6 << " M parameters: the step is held up for " << held * 1e3 << " ms in the background, " << whole * 1e3
                   << " ms without; less than 1 % when at least " << held * 100 << " s of training lie between two checkpoints");
  CHECK(held < 0.25 * whole);
}

}  // namespace
}  // namespace twinlens::test
