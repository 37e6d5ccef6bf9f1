// train_step: how long one training step takes, and where.

#include <CLI/CLI.hpp>
#include <algorithm>
#include <chrono>
#include <cstdio>
#include <ctime>
#include <iostream>
#include <nlohmann/json.hpp>
#include <sys/resource.h>

#include "bench/measure/peak.h"
#include "bench/step/batch.h"
#include "bench/step/cost.h"
#include "bench/step/runner.h"
#include "examples/twinlens/number_checks.h"

#include "twinlens/clip/pretrained.h"
#include "twinlens/core/safetensors.h"
#include "twinlens/kernels/error.h"
#include "twinlens/kernels/isa.h"
#include "twinlens/kernels/memory.h"
#include "twinlens/kernels/parallel.h"

namespace twinlens::bench {
namespace {

using Json = nlohmann::ordered_json;
using Clock = std::chrono::steady_clock;
constexpr int kWrongUsage = 2;  // as of the program

struct Options {
  RunnerOptions runner;
  int steps = 5, warmup = 2, threads = 0;
  bool json = false, serve = false;
  std::string save;
};

double seconds_since(Clock::time_point start) { return std::chrono::duration<double>(Clock::now() - start).count(); }

double median(std::vector<double> x) {
  std::sort(x.begin(), x.end());
  return x.empty() ? 0.0 : x[x.size() / 2];
}

std::int64_t peak_rss() {
  rusage usage{};
  getrusage(RUSAGE_SELF, &usage);
  return static_cast<std::int64_t>(usage.ru_maxrss) * 1024;
}

struct Round {
  double seconds = 0.0;        // a step: the median on the CPU, the mean on a card, where nothing waits between steps
  double least_seconds = 0.0;  // the fastest step; CPU only
  double cpu_seconds = 0.0;    // a step on the processor, all threads together divided by their number: what a busy machine cannot spoil
  std::vector<double> losses;
};

Round timed_steps(Runner& runner, int steps) {
  std::vector<Tensor> losses;
  std::vector<double> seconds;
  runner.wait();
  const auto start = Clock::now();
  const std::clock_t cpu_start = std::clock();
  for (int i = 0; i < steps; ++i) {
    const auto begin = Clock::now();
    if (runner.forward_only()) {
      runner.features();
    } else {
      losses.push_back(runner.step());
    }
    seconds.push_back(seconds_since(begin));
  }
  runner.wait();
  Round round;
  round.cpu_seconds = static_cast<double>(std::clock() - cpu_start) / CLOCKS_PER_SEC / thread_count() / std::max(1, steps);
  round.seconds = runner.device().is_cuda() ? seconds_since(start) / std::max(1, steps) : median(seconds);
  if (runner.device().is_cpu() && !seconds.empty()) round.least_seconds = *std::min_element(seconds.begin(), seconds.end());
  for (const Tensor& loss : losses) round.losses.push_back(static_cast<double>(loss.item()));
  return round;
}

// Two steps with a clock on the parts; of each part the faster one.
Json phase_times(Runner& runner) {
  PhaseSeconds first, second;
  runner.step(&first);
  runner.step(&second);
  Json out;
  for (std::size_t i = 0; i < first.of.size(); ++i) out[PhaseSeconds::kNames[i]] = 1e3 * std::min(first.of[i], second.of[i]);
  return out;
}

// One step with the trace on, which waits for the device after every kernel.
Json op_times(Runner& runner) {
  reset_kernel_times();
  set_tracing(true);
  const auto start = Clock::now();
  runner.step();
  const double whole = 1e3 * seconds_since(start);
  set_tracing(false);
  Json out = Json::array();
  double inside = 0.0;
  for (const KernelTime& time : kernel_times()) {
    out.push_back({{"op", time.name}, {"calls", time.calls}, {"milliseconds", 1e3 * time.seconds}});
    inside += 1e3 * time.seconds;
  }
  out.push_back({{"op", "(outside of kernels)"}, {"calls", 0}, {"milliseconds", whole - inside}});
  return out;
}

double peak_gflops(const Runner& runner) {
  if (runner.device().is_cuda()) return cuda_product_gflops(runner.device(), runner.compute());
  return cpu_peak_gflops(runner.compute() == Compute::bf16);
}

Json report(const Options& o, Runner& runner, const Round& round) {
  const StepCost cost = step_cost(runner.model().config, runner.batch(), o.runner.step, o.runner.prune_last_block);
  const auto pairs = static_cast<double>(o.runner.batch_size);
  const double peak = peak_gflops(runner), rate = cost.remaining / round.seconds * 1e-9;
  Json out{{"model", o.runner.model},
           {"batch_size", o.runner.batch_size},
           {"precision", o.runner.precision},
           {"device", o.runner.device},
           {"captions", o.runner.captions},
           {"text_tokens", runner.text_rows()},
           {"instruction_set", name_of(active_isa())},
           {"threads", thread_count()},
           {"steps", o.steps},
           {"pairs_per_second", pairs / round.seconds},
           {"milliseconds_per_step", 1e3 * round.seconds},
           {"milliseconds_fastest_step", round.least_seconds > 0.0 ? Json(1e3 * round.least_seconds) : Json()},
           {"cpu_milliseconds_per_step", 1e3 * round.cpu_seconds},
           {"gflops_per_second", rate},
           {"nominal_gflops_per_second", cost.nominal / round.seconds * 1e-9},
           {"peak_gflops", peak > 0.0 ? Json(peak) : Json()},
           {"percent_of_peak", peak > 0.0 ? Json(100.0 * rate / peak) : Json()},
           {"cpu_percent_of_peak", runner.device().is_cpu() ? Json(100.0 * cost.remaining / round.cpu_seconds * 1e-9 / peak) : Json()},
           {"peak_memory_bytes", memory_report(runner.device()).peak_bytes},
           {"peak_rss_bytes", peak_rss()}};
  out["async_step"] = o.runner.async_step;
  out["graphs"] = runner.graphs();
  out["milliseconds"] = o.runner.async_step ? Json::object() : phase_times(runner);
  out["ops"] = op_times(runner);
  out["losses"] = round.losses;
  return out;
}

void print_table(const Json& r) {
  std::printf("%s  batch %lld  %s  %s (%s, %d threads)  captions %s, %lld tokens\n", r["model"].get<std::string>().c_str(),
              r["batch_size"].get<long long>(), r["precision"].get<std::string>().c_str(), r["device"].get<std::string>().c_str(),
              r["instruction_set"].get<std::string>().c_str(), r["threads"].get<int>(), r["captions"].get<std::string>().c_str(),
              r["text_tokens"].get<long long>());
  std::printf("%10.1f pairs/s   %10.1f ms a step   %8.1f GFLOP/s (%.1f counted as the textbook does)\n",
              r["pairs_per_second"].get<double>(), r["milliseconds_per_step"].get<double>(), r["gflops_per_second"].get<double>(),
              r["nominal_gflops_per_second"].get<double>());
  if (const auto graphs = r["graphs"].get<std::string>(); !graphs.empty()) std::printf("%s\n", graphs.c_str());
  if (!r["percent_of_peak"].is_null()) {
    std::printf("%10.1f %% of the peak measured now, %.0f GFLOP/s\n", r["percent_of_peak"].get<double>(), r["peak_gflops"].get<double>());
  }
  if (!r["cpu_percent_of_peak"].is_null()) {
    std::printf("%10.1f %% by the time on the processor, %.1f ms a step\n", r["cpu_percent_of_peak"].get<double>(),
                r["cpu_milliseconds_per_step"].get<double>());
  }
  std::printf("%10.1f MiB of tensors at the peak, %.1f MiB of the process\n\n", r["peak_memory_bytes"].get<double>() / 1048576.0,
              r["peak_rss_bytes"].get<double>() / 1048576.0);
  for (const auto& [phase, ms] : r["milliseconds"].items()) std::printf("%10.2f ms  %s\n", ms.get<double>(), phase.c_str());
  std::printf("\n");
  for (const Json& op : r["ops"]) {
    std::printf("%10.2f ms  %5lld x  %s\n", op["milliseconds"].get<double>(), op["calls"].get<long long>(),
                op["op"].get<std::string>().c_str());
  }
}

// Rounds in turns with another program: a line with a number on stdin is a round of so many steps, answered by a line of JSON. The report
// comes at the end of stdin.
Round serve(Runner& runner) {
  Round last;
  for (int steps = 0; std::cin >> steps;) {
    last = timed_steps(runner, steps);
    std::cout << Json{{"seconds", last.seconds}, {"cpu_seconds", last.cpu_seconds}, {"losses", last.losses}, {"peak_rss_bytes", peak_rss()}}
                     .dump()
              << std::endl;
  }
  return last;
}

void add_flags(CLI::App& app, Options& o) {
  RunnerOptions& r = o.runner;
  app.add_option("--model", r.model, "Built-in name, open_clip config .json, or model folder")->capture_default_str();
  app.add_option("--batch-size", r.batch_size, "Pairs")->capture_default_str()->check(program::at_least(1));
  app.add_option("--precision", r.precision, "fp32, tf32 or bf16")->capture_default_str();
  app.add_option("--device", r.device, "cpu or cuda[:i]")->capture_default_str();
  app.add_option("--captions", r.captions, "emoji, web, dense, or a text file with a caption on each line")->capture_default_str();
  app.add_option("--steps", o.steps, "Steps that are timed")->capture_default_str()->check(program::at_least(1));
  app.add_option("--warmup", o.warmup, "Steps before them")->capture_default_str()->check(program::at_least(0));
  app.add_option("--threads", o.threads, "0: all cores")->capture_default_str()->check(program::within(0, 1024));
  app.add_option("--seed", r.seed)->capture_default_str();
  app.add_option("--lr", r.learning_rate)->capture_default_str()->check(program::at_least(0));
  app.add_option("--grad-clip-norm", r.grad_clip_norm, "Reads the norm back in every step, as the trainer does; 0: off")
      ->capture_default_str()
      ->check(program::at_least(0));
  app.add_option("--max-chunk", r.step.max_chunk, "Pairs encoded at once; 0: all")->capture_default_str()->check(program::at_least(0));
  app.add_flag("!--no-pack-captions", r.step.pack_captions, "Every caption padded to the context");
  app.add_flag("!--no-prune-last-block", r.prune_last_block, "Whole last blocks");
  app.add_flag("!--no-encode-equal-once", r.step.encode_equal_once, "Equal captions encoded as often as they stand there");
  app.add_flag("!--no-stream-loss", r.step.stream_loss, "All logits in memory instead of tiles");
  app.add_flag("--async-step", r.async_step, "On a card: the host hears of a step's norm a step later; no times of phases");
  app.add_flag("--cuda-graphs", r.cuda_graphs,
               "On a card: record the step and queue it as one; with --async-step, after 2 steps of --warmup");
  app.add_flag("--update-in-backward", r.update_in_backward,
               "Every parameter is updated as soon as its gradient is there, which is then let go; the same numbers in less memory")
      ->excludes("--grad-clip-norm")
      ->excludes("--max-chunk");
  app.add_flag("--recompute-cheap", r.recompute_cheap, "Recompute normalised rows and activations in backward");
  app.add_flag("!--no-weight-copies", r.weight_copies, "In bf16: products round the weights themselves");
  app.add_flag("--grad-checkpointing", r.checkpoint_blocks, "Recompute Transformer blocks in backward");
  app.add_option("--save", o.save, "Folder that gets the model and batch.safetensors, before the first step");
  app.add_flag("--json", o.json, "One object on stdout");
  app.add_flag("--serve", o.serve, "Rounds on demand: a number of steps on each line of stdin")->excludes("--warmup");
  app.add_option("--forward", r.forward, "image or text: a round is of that tower's features alone; --save writes them, too")
      ->check(CLI::IsMember({"image", "text"}))
      ->needs("--serve");
}

int run_program(int argc, char** argv) {
  CLI::App app{"Times one training step, by phase and by op.", "train_step"};
  Options o;
  add_flags(app, o);
  try {
    app.parse(argc, argv);
  } catch (const CLI::ParseError& error) {
    return app.exit(error) == 0 ? 0 : kWrongUsage;  // (--help comes here, too)
  }
  if (o.threads > 0) set_thread_count(o.threads);
  Runner runner(o.runner);
  if (!o.save.empty()) {
    save_model(runner.model(), o.save);
    write_batch(o.save + "/batch.safetensors", runner.batch(), runner.model().config.text.context_length);
    if (runner.forward_only()) write_safetensors(o.save + "/features.safetensors", {{"features", runner.features().to(kCpu)}});
  }
  Round round;
  if (o.serve) {
    std::cout << "{\"ready\": true}" << std::endl;
    round = serve(runner);
    if (runner.forward_only() || round.seconds <= 0.0) return 0;
  } else {
    timed_steps(runner, o.warmup);
    reset_peak_memory(runner.device());
    round = timed_steps(runner, o.steps);
  }
  const Json result = report(o, runner, round);
  if (o.json || o.serve) {
    std::printf("%s\n", o.serve ? result.dump().c_str() : result.dump(2).c_str());
  } else {
    print_table(result);
  }
  return 0;
}

}  // namespace
}  // namespace twinlens::bench

int main(int argc, char** argv) {
  try {
    return twinlens::bench::run_program(argc, argv);
  } catch (const twinlens::Error& error) {
    std::fprintf(stderr, "error: %s\n", error.what());
  } catch (const std::exception& error) {
    std::fprintf(stderr, "error: %s; unexpected; please report it with the command line\n", error.what());
  }
  return 1;
}
