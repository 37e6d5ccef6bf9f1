// bin/save_bench: what checkpoints written in the background cost a training run. Rounds of steps with a save before the first of each and
// rounds without go turn about; the time that save() holds the trainer up is taken by itself, so that a busy machine can spoil it upwards
// only.

#include <CLI/CLI.hpp>
#include <algorithm>
#include <chrono>
#include <cstdio>
#include <ctime>
#include <filesystem>
#include <nlohmann/json.hpp>
#include <vector>

#include "bench/step/batch.h"
#include "clip/src/checkpoint.h"

#include "twinlens/clip/train_step.h"
#include "twinlens/kernels/error.h"
#include "twinlens/kernels/parallel.h"

namespace twinlens::bench {
namespace {

struct Flags {
  std::string model = "ViT-B-32", folder = "save_bench_checkpoints", precision = "amp_bf16";
  std::int64_t batch_size = 64, every = 5, rounds = 3;
  int threads = 0;
  bool json = false;
};

double thread_seconds() {
  timespec t{};
  clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
  return static_cast<double>(t.tv_sec) + 1e-9 * static_cast<double>(t.tv_nsec);
}
double process_seconds() { return static_cast<double>(std::clock()) / CLOCKS_PER_SEC; }
double now() { return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count(); }
double median(std::vector<double> x) {
  std::sort(x.begin(), x.end());
  return x[x.size() / 2];
}
double least(const std::vector<double>& x) { return *std::min_element(x.begin(), x.end()); }

class Run {
 public:
  explicit Run(const Flags& flags)
      : flags_(flags), model_(find_model_config(flags.model), 1), batch_(make_batch(model_.config, flags.batch_size, "web", 1)) {
    context_.training = true;
    context_.compute = flags.precision == "fp32" ? Compute::fp32 : Compute::bf16;
    context_.step = &block_;
    block_.learning_rate = 1e-4F;
    parameters_ = std::make_unique<FlatParameters>(collect(model_), context_.compute == Compute::bf16);
    writer_ = std::make_unique<CheckpointWriter>(flags.folder, 1, true);
    writer_->reserve(model_, *parameters_, nullptr);
    step();
  }

  // Seconds of each step; in a round with a save the first one has it in it.
  void round(bool saves) {
    std::vector<double>& steps = saves ? with_ : without_;
    const double start = now(), thread_start = thread_seconds(), process_start = process_seconds();
    if (saves) {
      state_.step = static_cast<std::int64_t>(block_.step);
      writer_->save(state_, model_, *parameters_, nullptr);
      held_up_.push_back(now() - start);
      held_up_cpu_.push_back(thread_seconds() - thread_start);
    }
    for (std::int64_t i = 0; i < flags_.every; ++i) step();
    steps.push_back((now() - start) / static_cast<double>(flags_.every));
    if (!saves) {
      cpu_.push_back((thread_seconds() - thread_start) / static_cast<double>(flags_.every));
      return;
    }
    const double end = now();
    writer_->wait();
    late_.push_back(now() - end);
    writing_cpu_.push_back(process_seconds() - process_start - (thread_seconds() - thread_start));
  }

  void report() const {
    const double plain = median(without_), held = median(held_up_), share = held / (static_cast<double>(flags_.every) * least(without_));
    const nlohmann::ordered_json out{{"milliseconds_per_step", 1e3 * plain},
                                     {"milliseconds_per_step_with_saves", 1e3 * median(with_)},
                                     {"slower_by", median(with_) / plain - 1.0},
                                     {"held_up_milliseconds_per_save", 1e3 * held},
                                     {"least_held_up_milliseconds", 1e3 * least(held_up_)},
                                     {"steps_per_save", flags_.every},
                                     {"held_up_share", share},
                                     {"cpu_milliseconds_per_step", 1e3 * least(cpu_)},
                                     {"held_up_cpu_milliseconds_per_save", 1e3 * least(held_up_cpu_)},
                                     {"held_up_cpu_share", least(held_up_cpu_) / (static_cast<double>(flags_.every) * least(cpu_))},
                                     {"writing_cpu_milliseconds_per_save", 1e3 * least(writing_cpu_)},
                                     {"still_writing_after_steps_milliseconds", 1e3 * median(late_)}};
    if (flags_.json) {
      std::printf("%s\n", out.dump().c_str());
      return;
    }
    for (const auto& [name, value] : out.items()) std::printf("%-42s %10.4g\n", name.c_str(), value.get<double>());
  }

 private:
  void step() {
    parameters_->forget_gradients();
    forward_backward(model_, batch_, {}, context_, *communicator_);
    adamw_step(*parameters_, block_, {});
    ++block_.step;
  }

  const Flags& flags_;
  Clip model_;
  PairBatch batch_;
  StepBlock block_;
  Context context_;
  TrainState state_;
  std::unique_ptr<Communicator> communicator_ = solo_communicator();
  std::unique_ptr<FlatParameters> parameters_;
  std::unique_ptr<CheckpointWriter> writer_;
  std::vector<double> with_, without_, held_up_, late_, cpu_, held_up_cpu_, writing_cpu_;
};

int run(int argc, char** argv) {
  Flags flags;
  CLI::App app{"How long background checkpoints hold a training run up"};
  app.add_option("--model", flags.model)->capture_default_str();
  app.add_option("--batch-size", flags.batch_size)->capture_default_str();
  app.add_option("--precision", flags.precision)->capture_default_str()->check(CLI::IsMember({"fp32", "amp_bf16"}));
  app.add_option("--threads", flags.threads, "Compute threads; 0: all cores. Figures on the processor want 1")->capture_default_str();
  app.add_option("--every", flags.every, "Steps between saves")->capture_default_str()->check(CLI::PositiveNumber);
  app.add_option("--rounds", flags.rounds, "Of each kind")->capture_default_str()->check(CLI::PositiveNumber);
  app.add_option("--folder", flags.folder, "Where checkpoints are written; deleted at the end")->capture_default_str();
  app.add_flag("--json", flags.json);
  CLI11_PARSE(app, argc, argv);
  if (std::filesystem::exists(flags.folder)) throw FileError("the folder is there already; " + flags.folder + "; choose another --folder");
  if (flags.threads > 0) set_thread_count(flags.threads);
  {
    Run bench(flags);
    for (std::int64_t i = 0; i < flags.rounds; ++i) {
      bench.round(false);
      bench.round(true);
    }
    bench.report();
  }
  std::filesystem::remove_all(flags.folder);
  return 0;
}

}  // namespace
}  // namespace twinlens::bench

int main(int argc, char** argv) {
  try {
    return twinlens::bench::run(argc, argv);
  } catch (const twinlens::Error& e) {
    std::fprintf(stderr, "error: %s\n", e.what());
    return 1;
  }
}
