// Stopped by a signal or killed while saving, a resumed run ends with the bytes of one that was left alone.

#include <algorithm>
#include <catch2/catch.hpp>
#include <chrono>
#include <csignal>
#include <cstdlib>
#include <filesystem>
#include <random>
#include <thread>

#include "tests/program/program.h"
#include "tests/support/temporary_folder.h"
#include "tests/support/toy_data.h"

#include "twinlens/core/file.h"

namespace twinlens::test {
namespace {

namespace fs = std::filesystem;

// A large vocabulary: saving takes as long as a step.
std::string large_config() {
  return R"({"embed_dim": 32, "vision_cfg": {"image_size": 32, "layers": 1, "width": 64, "head_width": 32, "patch_size": 16},
             "text_cfg": {"context_length": 24, "vocab_size": 49408, "width": 64, "heads": 2, "layers": 1}})";
}

class Run {
 public:
  explicit Run(const std::string& config) {
    write_toy_folder(folder_ / "data", toy_pairs(20));
    write_text(folder_ / "model.json", config);
  }
  std::vector<std::string> arguments(const std::string& name, const std::string& epochs, const std::vector<std::string>& more = {}) const {
    std::vector<std::string> all{"train", "--train-data", folder_ / "data", "--model", folder_ / "model.json", "--logs", folder_ / "logs"};
    for (const char* word : {"--batch-size",
                             "4",
                             "--lr",
                             "1e-2",
                             "--ema",
                             "0.9",
                             "--flip",
                             "--aug-scale",
                             "0.5",
                             "1",
                             "--seed",
                             "3",
                             "--save-frequency",
                             "0",
                             "--log-every-n-steps",
                             "1",
                             "--name",
                             name.c_str(),
                             "--epochs",
                             epochs.c_str()}) {
      all.emplace_back(word);
    }
    all.insert(all.end(), more.begin(), more.end());
    return all;
  }
  std::string data() const { return folder_ / "data"; }
  fs::path of(const std::string& name) const { return fs::path(folder_ / "logs") / name; }
  // Weights, moments and averages after `step`, and the exported model.
  void check_equal(const std::string& a, const std::string& b, int step) const {
    const std::string checkpoint = "checkpoints/step_" + std::to_string(step);
    for (const std::string& file :
         {checkpoint + "/model.safetensors", checkpoint + "/optimizer.safetensors", std::string("model/open_clip_model.safetensors")}) {
      INFO(file);
      CHECK(read_file((of(a) / file).string()) == read_file((of(b) / file).string()));
    }
  }

 private:
  TemporaryFolder folder_;
};

// Waits until `there()` or the program has ended; false for the latter.
template <class F>
bool wait_until(Running& program, F there) {
  while (!there()) {
    if (program.ended()) return false;
    std::this_thread::sleep_for(std::chrono::microseconds(200));
  }
  return true;
}

TEST_CASE("SIGTERM, Ctrl-C and a lost terminal save and stop; --resume latest ends with the same bytes", "[train]") {
  const Run runs(toy_vit_json());
  const Outcome whole = run(Start{runs.arguments("whole", "40", {"--workers", "1"}), {}, {"OMP_NUM_THREADS=1"}, 0});
  INFO(whole.err);
  REQUIRE(whole.status == 0);
  for (const int signal : {SIGTERM, SIGINT, SIGHUP}) {
    const std::string name = "stopped_by_" + std::to_string(signal);
    Running program(Start{runs.arguments(name, "40", {"--workers", "3", "--json"}), {}, {"OMP_NUM_THREADS=2"}, 0});
    const fs::path metrics = runs.of(name) / "metrics.jsonl";
    REQUIRE(wait_until(program, [&] { return fs::exists(metrics) && fs::file_size(metrics) > 0; }));
    program.signal(signal);
    if (signal == SIGHUP) program.signal(signal);  // from the shell and from the kernel
    const Outcome stopped = program.wait();
    INFO(stopped.err);
    CHECK(stopped.status == 0);
    CHECK(stopped.out.find("\"stopped_early\":true") != std::string::npos);
    CHECK(stopped.err.find("stopped; continue with --resume latest") != std::string::npos);
    const Outcome resumed = run(Start{runs.arguments(name, "40", {"--resume", "latest", "--workers", "1"}), {}, {"OMP_NUM_THREADS=2"}, 0});
    INFO(resumed.err);
    CHECK(resumed.status == 0);
    runs.check_equal("whole", name, 200);
  }
}

TEST_CASE("SIGTERM in a step that takes longer than the time it leaves: the last complete step is saved", "[train]") {
  // Pictures of 9216 tokens: a step takes half a minute and more.
  const Run runs(R"({"embed_dim": 32, "vision_cfg": {"image_size": 768, "layers": 12, "width": 128, "head_width": 64, "patch_size": 8},
                     "text_cfg": {"context_length": 24, "vocab_size": 1000, "width": 32, "heads": 2, "layers": 1}})");
  Running program(Start{runs.arguments("run", "40"), {}, {}, 0});
  REQUIRE(wait_until(program, [&] { return fs::exists(runs.of("run") / "params.json"); }));
  std::this_thread::sleep_for(std::chrono::milliseconds(100));
  program.signal(SIGTERM);
  REQUIRE(wait_until(program, [&] { return fs::exists(runs.of("run") / "checkpoints/latest"); }));
  program.signal(SIGKILL);
  CHECK(program.wait().status == -SIGKILL);
  CHECK(fs::exists(runs.of("run") / "checkpoints/step_0/checksums.json"));
  // It can be resumed from.
  Running again(Start{runs.arguments("run", "40", {"--resume", "latest"}), {}, {}, 0});
  std::this_thread::sleep_for(std::chrono::milliseconds(1500));
  CHECK_FALSE(again.ended());
  again.signal(SIGKILL);
  CHECK_THAT(again.wait().err, !Catch::Contains("warning") && !Catch::Contains("error"));
}

TEST_CASE("a run whose messages nobody reads any more goes on", "[train]") {
  const Run runs(toy_vit_json());
  std::string command = TWINLENS_PROGRAM;
  for (const std::string& argument : runs.arguments("run", "20", {"--log-every-n-steps", "1"})) command += " " + argument;
  REQUIRE(std::system((command + " 2>&1 | true").c_str()) == 0);
  CHECK(fs::exists(runs.of("run") / "checkpoints/step_100"));
  CHECK(fs::exists(runs.of("run") / "report.html"));
}

TEST_CASE("a second Ctrl-C ends the program at once", "[train]") {
  // One step of this takes far longer than the test waits.
  const Run runs(R"({"embed_dim": 32, "vision_cfg": {"image_size": 512, "layers": 24, "width": 512, "head_width": 64, "patch_size": 16},
                     "text_cfg": {"context_length": 24, "vocab_size": 1000, "width": 32, "heads": 2, "layers": 1}})");
  Running program(Start{runs.arguments("run", "40"), {}, {}, 0});
  REQUIRE(wait_until(program, [&] { return fs::exists(runs.of("run") / "params.json"); }));
  std::this_thread::sleep_for(std::chrono::milliseconds(100));
  program.signal(SIGINT);
  std::this_thread::sleep_for(std::chrono::milliseconds(50));
  CHECK_FALSE(program.ended());
  program.signal(SIGINT);
  CHECK(program.wait().status == -SIGINT);
  CHECK_FALSE(fs::exists(runs.of("run") / "checkpoints"));
}

TEST_CASE("kill -9 while a checkpoint is being written leaves the one before, and the run goes on from it", "[train]") {
  const Run runs(large_config());
  REQUIRE(run(runs.arguments("whole", "3", {"--save-every-steps", "1"})).status == 0);
  int killed = 0;
  for (const int step : {3, 6, 8, 11}) {
    std::vector<std::string> more{"--save-every-steps", "1"};
    if (killed > 0) more.insert(more.end(), {"--resume", "latest"});
    Running program(Start{runs.arguments("killed", "3", more), {}, {}, 0});
    const fs::path half = runs.of("killed") / "checkpoints" / ("tmp_" + std::to_string(step));
    REQUIRE(wait_until(program, [&] { return fs::exists(half); }));
    std::this_thread::sleep_for(std::chrono::milliseconds(step % 4));
    program.signal(SIGKILL);
    CHECK(program.wait().status == -SIGKILL);
    ++killed;
  }
  const Outcome resumed = run(runs.arguments("killed", "3", {"--save-every-steps", "1", "--resume", "latest"}));
  INFO(resumed.err);
  CHECK(resumed.status == 0);
  runs.check_equal("whole", "killed", 15);
  for (const auto& entry : fs::directory_iterator(runs.of("killed") / "checkpoints")) {
    INFO(entry.path());
    CHECK((entry.path().filename() == "latest" || entry.path().filename().string().rfind("step_", 0) == 0));
  }
}

// A run is killed at random moments, taken up with another number of workers and threads each time, until it is done; its weights are
// then those of the run that was never killed. Saves are frequent and in the background, so that many kills fall into one.
void check_kills(int kills, unsigned seed) {
  const Run runs(GENERATE(true, false) ? toy_vit_json() : large_config());
  const std::vector<std::string> more{"--save-every-steps", "3", "--val-data",  runs.data(),
                                      "--val-frequency",    "4", "--save-best", "clip_val_loss"};
  constexpr int kSteps = 100;  // 20 epochs of 5 steps
  REQUIRE(run(runs.arguments("whole", "20", more)).status == 0);
  std::mt19937 random(seed);
  int killed = 0, finished = 0;
  bool fresh = true;
  while (killed < kills || finished == 0) {
    std::vector<std::string> flags = more;
    const std::string workers = std::to_string(1 + random() % 4), threads = "OMP_NUM_THREADS=" + std::to_string(1 + random() % 2);
    flags.insert(flags.end(), {"--workers", workers});
    if (!fresh) flags.insert(flags.end(), {"--resume", "latest"});
    Running program(Start{runs.arguments("killed", "20", flags), {}, {threads}, 0});
    // Enough kills, or enough of waiting: this one may finish.
    const bool spare = killed >= kills;
    const auto until = std::chrono::steady_clock::now() + std::chrono::microseconds(20'000 + random() % 1'500'000);
    while (!program.ended() && (spare || std::chrono::steady_clock::now() < until))
      std::this_thread::sleep_for(std::chrono::microseconds(200));
    if (!program.ended()) program.signal(SIGKILL);
    const Outcome outcome = program.wait();
    INFO(outcome.err);
    fresh = !fs::exists(runs.of("killed") / "params.json");  // killed before it had begun: nothing to resume
    if (outcome.status == -SIGKILL) {
      ++killed;
      continue;
    }
    REQUIRE(outcome.status == 0);
    ++finished;
    runs.check_equal("whole", "killed", kSteps);
    CHECK(read_file((runs.of("whole") / "best/open_clip_model.safetensors").string()) ==
          read_file((runs.of("killed") / "best/open_clip_model.safetensors").string()));
    // Every step and evaluation is in the log once.
    const auto lines = [&](const std::string& name) {
      const std::string text = read_file((runs.of(name) / "metrics.jsonl").string());
      return std::count(text.begin(), text.end(), '\n');
    };
    CHECK(lines("whole") == lines("killed"));
    fs::remove_all(runs.of("killed"));
    fresh = true;
  }
  CHECK(killed >= kills);
}

TEST_CASE("kill -9 at any moment, then --resume latest: the same bytes", "[train]") { check_kills(4, 1); }

TEST_CASE("kill -9 at 100 random moments, then --resume latest: the same bytes", "[.full]") { check_kills(100, 2); }

}  // namespace
}  // namespace twinlens::test
