// The guard of a run: what is left out, when it goes back, and what it says about a run that learns nothing.

#include "clip/src/run_health.h"

#include <catch2/catch.hpp>
#include <cmath>
#include <filesystem>
#include <limits>
#include <nlohmann/json.hpp>
#include <sstream>

#include "tests/support/temporary_folder.h"
#include "tests/support/toy_data.h"
#include "tests/support/toy_training.h"

#include "twinlens/core/file.h"
#include "twinlens/core/ops.h"
#include "twinlens/core/safetensors.h"
#include "twinlens/kernels/error.h"

namespace twinlens::test {
namespace {

using Catch::Contains;
using Verdict = RunHealth::Verdict;

TrainOptions options_in(const TemporaryFolder& folder) {
  TrainOptions o = toy_training(folder, toy_pairs(26));
  o.batch_size = 8;
  o.epochs = 3;
  o.lr = 1e-3;
  o.warmup = 0;
  o.save_every_steps = 1;
  o.keep_last = 100;
  o.log_every_n_steps = 1;
  // A cooldown that heats up: the learning rate of the 8th of 9 steps is above 1e20.
  o.lr_scheduler = "const-cooldown";
  o.epochs_cooldown = 1;
  o.lr_cooldown_power = -140.0;
  return o;
}

TEST_CASE("a run that stops being finite ends, with the step and the samples", "[train]") {
  const TemporaryFolder folder;
  CHECK_THROWS_WITH(train(options_in(folder)),
                    Contains("not finite at step 9") && Contains("samples ") && Contains("last good checkpoint"));
}

TEST_CASE("with skip it leaves the step out and goes back behind the update that did it", "[train]") {
  const TemporaryFolder folder;
  TrainOptions o = options_in(folder);
  o.on_nonfinite = "skip";
  o.max_bad_steps = 1;
  const TrainResult result = train(o);
  CHECK(result.steps == 9);
  const std::string log = read_file(folder / "logs/run/out.log");
  CHECK_THAT(log, Contains("step 9: the loss is not finite; the step is left out (1 so far); samples ") ||
                      Contains("step 9: the gradient norm is not finite; the step is left out (1 so far); samples "));
  CHECK_THAT(log, Contains("back to the weights of step 7; the data goes on"));
  const auto state = nlohmann::json::parse(read_file(folder / "logs/run/checkpoints/step_9/state.json"));
  CHECK(state["left_out"] == 2);  // the step that was bad, and the update that was taken back
  const auto then = read_safetensors(folder / "logs/run/checkpoints/step_7/model.safetensors");
  const auto now = read_safetensors(folder / "logs/run/model/open_clip_model.safetensors");
  CHECK(now.at("text_projection").to_vector() == then.at("text_projection").to_vector());
  CHECK(count_nonfinite(now.at("logit_scale")).to_ints()[0] == 0);
}

TEST_CASE("checkpoints of steps that are left out do not push out the one to go back to", "[train]") {
  const TemporaryFolder folder;
  TrainOptions o = options_in(folder);
  o.batch_size = 26;  // an epoch is a step, of which the sixth of nine does it
  o.epochs = 9;
  o.epochs_cooldown = 5;
  o.lr_cooldown_power = -280.0;
  o.keep_last = 2;
  o.on_nonfinite = "skip";
  o.max_bad_steps = 3;
  CHECK(train(o).steps == 9);
  CHECK_THAT(read_file(folder / "logs/run/out.log"), Contains("back to the weights of step 5; the data goes on"));
  int kept = 0;
  for (const auto& entry : std::filesystem::directory_iterator(folder / "logs/run/checkpoints")) kept += entry.is_directory() ? 1 : 0;
  CHECK(kept == 2);  // it has served
}

TEST_CASE("a run that is resumed goes back where it would have gone", "[train]") {
  const TemporaryFolder folder;
  TrainOptions o = options_in(folder);
  o.on_nonfinite = "skip";
  o.max_bad_steps = 1;
  train(o);
  const auto whole = read_safetensors(folder / "logs/run/model/open_clip_model.safetensors");
  std::filesystem::remove_all(folder / "logs/run/checkpoints/step_9");
  o.resume = "latest";  // step 8, whose update is the bad one
  train(o);
  CHECK_THAT(read_file(folder / "logs/run/out.log"), Contains("back to the weights of step 7; the data goes on"));
  const auto resumed = read_safetensors(folder / "logs/run/model/open_clip_model.safetensors");
  for (const auto& [name, tensor] : whole) CHECK(resumed.at(name).to_vector() == tensor.to_vector());
}

TEST_CASE("weights that give no features end a run in its validation, but not with skip", "[train]") {
  const TemporaryFolder folder;
  TrainOptions o = options_in(folder);
  o.val_data = o.train_data;
  o.batch_size = 26;  // an epoch is a step, of which the third of four does it
  o.epochs = 4;
  o.epochs_cooldown = 3;
  o.lr_cooldown_power = -160.0;
  CHECK_THROWS_WITH(train(o), Contains("features of pictures are not finite"));
  o.on_nonfinite = "skip";
  o.max_bad_steps = 1;
  o.name = "skips";
  CHECK(train(o).steps == 4);
  const std::string log = read_file(folder / "logs/skips/out.log");
  CHECK_THAT(log, Contains("warning: validation: embedding: features of pictures are not finite"));
  CHECK_THAT(log, Contains("back to the weights of step 2; the data goes on"));
}

TEST_CASE("without a checkpoint to go back to, skip ends with an error that says so", "[train]") {
  const TemporaryFolder folder;
  TrainOptions o = options_in(folder);
  o.on_nonfinite = "skip";
  o.max_bad_steps = 1;
  o.save_every_steps = 0;
  o.save_frequency = 0;
  CHECK_THROWS_WITH(train(o), Contains("1 steps in a row were not finite") && Contains("no checkpoint to go back to"));
}

TEST_CASE("the log has the figures of health", "[train]") {
  const TemporaryFolder folder;
  TrainOptions o = options_in(folder);
  o.lr_cooldown_power = 1.0;
  train(o);
  std::istringstream lines(read_file(folder / "logs/run/metrics.jsonl"));
  std::string line;
  REQUIRE(std::getline(lines, line));
  const auto json = nlohmann::json::parse(line);
  for (const char* key : {"grad_norm_image", "grad_norm_text", "cosine_own_pairs", "cosine_images", "cosine_texts", "ln_n",
                          "logit_scale_at_limit", "steps_left_out", "spikes"}) {
    INFO(key);
    CHECK(json.contains(key));
  }
  const double image = json["grad_norm_image"], text = json["grad_norm_text"], all = json["grad_norm"];
  CHECK(image > 0.0);
  CHECK(text > 0.0);
  CHECK(std::hypot(image, text) == Approx(all).epsilon(1e-2));  // the rest is the scale's
  CHECK(json["logit_scale_at_limit"] == false);
  CHECK_THAT(read_file(folder / "logs/run/out.log"), Contains("cosine of pairs ") && Contains("images ") && Contains("(ln N 2.079)"));
}

TEST_CASE("spikes are measured by AdamW's own memory of gradients") {
  Clip model(parse_model_config(toy_vit_json(), "test"), 1);
  FlatParameters flat(collect(model), false);
  TrainOptions o;
  RunHealth health(o);
  flat.moment2.fill_(0.0);
  flat.moment2.slice(0, 0, 4).fill_(1.0 - std::pow(0.98, 100));  // four gradients of size 1: a norm of 2
  CHECK(health.judge(1.0, 19.0, flat, 100, 0.98, true) == Verdict::good);
  CHECK(health.judge(1.0, 21.0, flat, 100, 0.98, true) == Verdict::spike);
  CHECK(health.judge(1.0, 21.0, flat, 5, 0.98, true) == Verdict::good);  // too early
  CHECK(health.judge(1.0, 21.0, flat, 100, 0.98, false) == Verdict::good);
  CHECK(health.judge(std::numeric_limits<double>::quiet_NaN(), 1.0, flat, 100, 0.98, true) == Verdict::not_finite);
  CHECK(health.judge(1.0, std::numeric_limits<double>::infinity(), flat, 5, 0.98, true) == Verdict::not_finite);
  o.grad_clip_norm = 1.0;
  CHECK(health.judge(1.0, 21.0, flat, 100, 0.98, true) == Verdict::good);
}

TEST_CASE("a loss that stays at ln N is noticed, with what may be the reason") {
  Clip model(parse_model_config(toy_vit_json(), "test"), 1);
  FlatParameters flat(collect(model), false);
  TrainOptions o;
  RunHealth health(o);
  const double ln_n = std::log(128.0);
  CHECK(health.hints(10, 4.85, ln_n, 100, 1e-3).empty());
  CHECK(health.hints(50, 4.84, ln_n, 100, 1e-3).empty());
  const auto hints = health.hints(60, 4.86, ln_n, 100, 1e-3);
  REQUIRE(hints.size() == 2);
  CHECK_THAT(hints[0], Contains("for 50 steps") && Contains("ln N = 4.852"));
  CHECK_THAT(hints[1], Contains("warm-up goes on until step 100"));
  CHECK(health.hints(70, 4.85, ln_n, 100, 1e-3).empty());  // said once
  CHECK(health.hints(400, 4.0, ln_n, 100, 1e-3).empty());
  health.look([&](const auto& wanted) { return flat.gradient_norm(wanted); }, {0.9, 0.99, 0.2});
  o.lock_text = true;
  health.hints(500, 4.85, ln_n, 100, 1e-3);
  const auto later = health.hints(600, 4.85, ln_n, 100, 1e-3);
  REQUIRE(later.size() == 3);
  CHECK_THAT(later[1], Contains("text tower is frozen"));
  CHECK_THAT(later[2], Contains("image tower gives nearly the same feature") && Contains("--lr"));
}

}  // namespace
}  // namespace twinlens::test
