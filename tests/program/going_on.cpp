// `train --resume`: which run goes on, with which model, and what is refused.

#include <catch2/catch.hpp>
#include <filesystem>
#include <nlohmann/json.hpp>

#include "tests/program/program.h"
#include "tests/support/temporary_folder.h"
#include "tests/support/toy_data.h"

#include "twinlens/core/file.h"

namespace twinlens::test {
namespace {

namespace fs = std::filesystem;
using Catch::Contains;
using Words = std::vector<std::string>;

class Runs {
 public:
  Runs() { write_text(folder_ / "vit.json", toy_vit_json()); }
  // With --name `name`, unless that is empty, and without --model.
  Words train(const std::string& name, const Words& more) const {
    Words all{"train", "--train-data", trained_model().data, "--logs", folder_ / "logs", "--batch-size", "8", "--lr", "1e-3"};
    if (!name.empty()) all.insert(all.end(), {"--name", name});
    all.insert(all.end(), more.begin(), more.end());
    return all;
  }
  std::string model() const { return folder_ / "vit.json"; }
  fs::path of(const std::string& name) const { return fs::path(folder_ / "logs") / name; }

 private:
  TemporaryFolder folder_;
};

void check_refused(const Words& arguments, const Words& message_has) {
  const Outcome o = run(arguments);
  INFO(o.err);
  CHECK(o.status == 1);
  for (const std::string& part : message_has) CHECK_THAT(o.err, Contains(part));
}

TEST_CASE("a path given to --resume does not go on in the folder of another run", "[train]") {
  const Runs runs;
  for (const char* name : {"first", "other"}) REQUIRE(run(runs.train(name, {"--model", runs.model(), "--epochs", "1"})).status == 0);
  const std::string metrics = read_file((runs.of("other") / "metrics.jsonl").string());
  const std::string checkpoint = (runs.of("first") / "checkpoints/step_3").string();
  REQUIRE(fs::exists(checkpoint));
  check_refused(runs.train("other", {"--model", runs.model(), "--epochs", "2", "--resume", checkpoint}),
                {"run 'other' exists already; " + runs.of("other").string(), "choose another --name"});
  CHECK(read_file((runs.of("other") / "metrics.jsonl").string()) == metrics);
  CHECK_FALSE(fs::exists(runs.of("other") / "checkpoints/abandoned"));
  // In a folder of its own it goes on, and so does the run itself.
  CHECK(run(runs.train("third", {"--model", runs.model(), "--epochs", "2", "--resume", checkpoint})).status == 0);
  CHECK(run(runs.train("first", {"--model", runs.model(), "--epochs", "2", "--resume", checkpoint})).status == 0);
  CHECK(read_file((runs.of("third") / "checkpoints/step_6/model.safetensors").string()) ==
        read_file((runs.of("first") / "checkpoints/step_6/model.safetensors").string()));
}

TEST_CASE("a run that goes on by the path of its checkpoint has its model, under whatever name", "[train]") {
  const Runs runs;
  REQUIRE(run(runs.train("first", {"--model", runs.model(), "--epochs", "1"})).status == 0);
  for (const std::string& path : {runs.of("first").string(), (runs.of("first") / "checkpoints/step_3").string()}) {
    const Outcome o = run(runs.train("again" + std::to_string(path.size()), {"--epochs", "2", "--resume", path}));
    INFO(o.err);
    CHECK(o.status == 0);
  }
}

TEST_CASE("a run goes on without what its model came from", "[train]") {
  const Runs runs;
  const fs::path gone = runs.of("gone"), config = runs.of("gone.json");
  fs::create_directories(gone.parent_path());
  fs::copy(trained_model().model, gone);
  fs::copy(runs.model(), config);
  const std::string source = GENERATE("--model", "--pretrained");
  CAPTURE(source);
  const std::string path = source == "--model" ? config.string() : gone.string();
  for (const char* name : {"kept", "lost", "killed"}) {
    const Outcome begun = run(runs.train(name, {source, path, "--epochs", "1", "--siglip"}));
    INFO(begun.err);
    REQUIRE(begun.status == 0);
  }
  REQUIRE(run(runs.train("kept", {"--resume", "latest", "--epochs", "2"})).status == 0);
  fs::remove_all(path);
  const std::string none = runs.of("none.json");  // (what is given is meant)
  const Outcome refused = run(runs.train("lost", {"--resume", "latest", "--epochs", "2", source, none}));
  CHECK(refused.status == 1);
  CHECK_THAT(refused.err,
             Contains(source == "--model" ? "'" + none + "' is not there" : "began with '" + path + "', not with '" + none + "'"));
  CHECK_THAT(refused.err, !Contains("its own model serves"));
  fs::remove_all(runs.of("killed") / "model");
  for (const std::string name : {"lost", "killed"}) {
    const Outcome o = run(runs.train(name, {"--resume", "latest", "--epochs", "2"}));
    INFO(o.err);
    REQUIRE(o.status == 0);
    const fs::path own = runs.of(name) / (name == "lost" ? "model" : "checkpoints/step_3");
    CHECK_THAT(o.err, Contains("note: '" + path + "', which the run began with, is not there; its own model serves, " + own.string()));
    for (const char* file : {"open_clip_model.safetensors", "open_clip_config.json"})
      CHECK(read_file((runs.of(name) / "model" / file).string()) == read_file((runs.of("kept") / "model" / file).string()));
  }
}

TEST_CASE("options that change the tensors are refused by name when a run goes on", "[train]") {
  const Runs runs;
  REQUIRE(run(runs.train("run", {"--model", runs.model(), "--epochs", "1", "--siglip"})).status == 0);
  const auto again = [&](const Words& more) {
    Words words{"--epochs", "2", "--resume", "latest"};
    words.insert(words.end(), more.begin(), more.end());
    return runs.train("run", words);
  };
  check_refused(again({"--pretrained", trained_model().model}), {"resume: the run began with random weights, not with '"});
  check_refused(again({"--siglip=false"}), {"resume: 'siglip' was true and is now unset", "give the flags of the first run"});
  check_refused(again({"--force-image-size", "64"}), {"resume: 'model/model_cfg/vision_cfg/image_size' was 32 and is now 64"});
  check_refused(again({"--ema", "0.9"}), {"resume: 'ema' was 0.0 and is now 0.9"});
  const Outcome o = run(again({"--siglip", "--max-chunk", "3"}));
  INFO(o.err);
  CHECK(o.status == 0);
  CHECK_THAT(o.err, Contains("note: the run had chunks of 0 (0: the whole batch); with --max-chunk 3 it goes on, but not bit for bit"));
}

TEST_CASE("flags that are not given are as the run has them that goes on", "[train]") {
  const Runs runs;
  const auto words_of = [&](const std::string& name, const std::string& epochs) {
    return runs.train(name, {"--model",
                             runs.model(),
                             "--epochs",
                             epochs,
                             "--siglip",
                             "--ema",
                             "0.9",
                             "--flip",
                             "--affine",
                             "5",
                             "0.1",
                             "0.9",
                             "1.1",
                             "--seed",
                             "7",
                             "--wd",
                             "0.1234567891",
                             "--val-data",
                             trained_model().data,
                             "--memory-limit",
                             "1G",
                             "--no-pack-captions",
                             "--log-every-n-steps",
                             "1"});
  };
  const auto check_same = [&](const std::string& a, const std::string& b) {
    for (const char* file : {"model.safetensors", "optimizer.safetensors"}) {
      INFO(file);
      CHECK(read_file((runs.of(a) / "checkpoints/step_9" / file).string()) ==
            read_file((runs.of(b) / "checkpoints/step_9" / file).string()));
    }
  };
  const auto params = [&](const std::string& name) { return nlohmann::json::parse(read_file((runs.of(name) / "params.json").string())); };
  // Of another length its learning rate would be another: both are told of 3 epochs in the end.
  REQUIRE(run(words_of("whole", "2")).status == 0);
  Words longer = words_of("whole", "3");
  longer.insert(longer.end(), {"--resume", "latest"});
  REQUIRE(run(longer).status == 0);
  REQUIRE(run(words_of("short", "2")).status == 0);
  const std::string logs = runs.of("").parent_path().string();
  const auto go_on = [&](const Words& more) {
    Words words{"train", "--logs", logs};
    words.insert(words.end(), more.begin(), more.end());
    const Outcome o = run(words);
    INFO(o.err);
    CHECK(o.status == 0);
    return o.err;
  };
  const nlohmann::json before = params("short");
  go_on({"--name", "fork", "--resume", runs.of("short").string(), "--epochs", "3"});
  go_on({"--name", "short", "--resume", "latest", "--epochs", "3", "--log-every-n-steps", "2"});
  check_same("whole", "short");
  check_same("whole", "fork");
  nlohmann::json expected = before;
  expected["resume"] = "latest";
  expected["epochs"] = 3;
  expected["log-every-n-steps"] = 2;
  CHECK(params("short") == expected);
  // A flag of the run can be taken back, what makes its bits cannot.
  go_on({"--name", "short", "--resume", "latest", "--val-data", "", "--epochs", "4"});
  CHECK(params("short")["val-data"] == "");
  check_refused({"train", "--logs", logs, "--name", "short", "--resume", "latest", "--siglip=false"},
                {"resume: 'siglip' was true and is now unset", "give the flags of the first run"});
  // Without the file they have to be given, and one that is broken is named.
  write_text(runs.of("short") / "params.json", "{\"lr\": \"fast\"}");
  check_refused({"train", "--logs", logs, "--name", "short", "--resume", "latest"}, {"resume: 'lr' cannot be \"fast\"", "params.json"});
  fs::remove(runs.of("short") / "params.json");
  const Outcome o = run(Words{"train", "--logs", logs, "--name", "short", "--resume", "latest"});
  CHECK(o.status == 2);
  CHECK_THAT(o.err, Contains("--train-data is required: the run that --resume names has no params.json to take it from"));
  const Outcome unnamed = run(Words{"train", "--logs", logs, "--resume", "latest"});
  CHECK(unnamed.status == 2);
  CHECK_THAT(unnamed.err, Contains("it is not said which run goes on; --resume latest; give --name"));
}

TEST_CASE("the counts of spikes and of steps left out are those of the whole run, also when it was resumed", "[train]") {
  const Runs runs;
  const Words skip{"--model",         runs.model(), "--on-nonfinite",      "skip", "--spike-factor", "0.7",
                   "--max-bad-steps", "1000",       "--log-every-n-steps", "1",    "--lr",           "3e-3"};
  const auto with = [&](const std::string& name, const Words& more) {
    Words words = skip;
    words.insert(words.end(), more.begin(), more.end());
    return runs.train(name, words);
  };
  const auto last_line = [&](const std::string& name) { return last_metrics(runs.of(name).string()); };
  // A constant rate: the steps are the same whatever the length of the run.
  const Words rate{"--lr-scheduler", "const", "--warmup", "0"};
  const auto epochs = [&](const std::string& count, const Words& more) {
    Words words = rate;
    words.insert(words.end(), {"--epochs", count});
    words.insert(words.end(), more.begin(), more.end());
    return words;
  };
  REQUIRE(run(with("whole", epochs("16", {}))).status == 0);
  REQUIRE(run(with("parts", epochs("12", {}))).status == 0);
  REQUIRE(last_line("parts")["spikes"].get<int>() > 0);
  REQUIRE(run(with("parts", epochs("16", {"--resume", "latest"}))).status == 0);
  for (const char* count : {"spikes", "steps_left_out"}) CHECK(last_line("parts")[count] == last_line("whole")[count]);
}

TEST_CASE("the best evaluation is that of the metric, the data and the run that go on", "[train]") {
  const Runs runs;
  const auto train = [&](const std::string& name, const std::string& epochs, const std::string& metric, const Words& more) {
    Words words{"--model", runs.model(), "--val-data", trained_model().data, "--keep-last",
                "20",      "--epochs",   epochs,       "--save-best",        metric};
    words.insert(words.end(), more.begin(), more.end());
    const Outcome o = run(runs.train(name, words));
    INFO(o.err);
    REQUIRE(o.status == 0);
    return o.err;
  };
  const auto best = [&](const std::string& name, int step) {
    return nlohmann::json::parse(read_file((runs.of(name) / ("checkpoints/step_" + std::to_string(step)) / "state.json").string()));
  };
  const std::string anew = "note: --save-best begins anew";
  train("run", "2", "clip_val_loss", {});
  CHECK(best("run", 6)["best_step"].get<int>() > 0);
  CHECK_THAT(train("run", "3", "clip_val_loss", {"--resume", "latest"}), !Contains(anew));
  CHECK_THAT(train("run", "4", "image_to_text_R@1", {"--resume", "latest"}), Contains(anew));
  CHECK(best("run", 12)["best_step"].get<int>() > 9);
  CHECK(best("run", 12)["best_value"].get<double>() <= 1.0);
  const std::string earlier = (runs.of("run") / "checkpoints/step_9").string();
  CHECK_THAT(train("fork", "4", "clip_val_loss", {"--resume", earlier}), Contains(anew));
  CHECK(fs::exists(runs.of("fork") / "best/open_clip_model.safetensors"));
  CHECK_THAT(train("run", "4", "clip_val_loss", {"--resume", earlier}), Contains(anew));
  CHECK(best("run", 12)["best_step"].get<int>() == 12);
}

}  // namespace
}  // namespace twinlens::test
