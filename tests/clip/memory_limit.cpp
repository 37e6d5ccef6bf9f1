// --memory-limit: the chunk it leads to keeps a step below the limit and does not change the result.

#include <catch2/catch.hpp>
#include <cmath>
#include <filesystem>
#include <nlohmann/json.hpp>
#include <numeric>

#include "clip/src/memory_plan.h"
#include "tests/support/memory_runs.h"
#include "tests/support/restored_threads.h"
#include "tests/support/temporary_folder.h"
#include "tests/support/toy_data.h"
#include "tests/support/toy_training.h"

#include "twinlens/clip/trainer.h"
#include "twinlens/core/file.h"
#include "twinlens/core/safetensors.h"
#include "twinlens/kernels/memory.h"
#include "twinlens/nn/optimizer.h"

namespace twinlens::test {
namespace {

namespace fs = std::filesystem;
using Catch::Contains;

// 65 tokens a picture: activations outweigh parameters.
constexpr const char* kConfig =
    R"({"embed_dim": 32, "vision_cfg": {"image_size": 64, "layers": 2, "width": 64, "head_width": 32, "patch_size": 8},
        "text_cfg": {"context_length": 24, "vocab_size": 1000, "width": 32, "heads": 2, "layers": 1}})";

// A model in training as the planner sees it.
struct InTraining {
  explicit InTraining(const ModelConfig& config, Compute compute = Compute::fp32)
      : model(config, 1), flat(collect(model), compute == Compute::bf16) {
    context.training = true;
    context.step = &block;
    context.compute = compute;
  }
  MemoryPlan plan(const MemoryBudget& budget) { return plan_memory(model, {}, context, *solo, budget); }

  Clip model;
  FlatParameters flat;
  StepBlock block;
  Context context;
  std::unique_ptr<Communicator> solo = solo_communicator();
};

struct Planned {
  const char* name;
  std::string config;
  std::int64_t pairs;
  Compute compute = Compute::fp32;
  double patch_dropout = 0.0;
  bool stream_loss = true;
};

void check_plans(const Planned& p) {
  ModelConfig config = parse_model_config(p.config, "test");
  config.vision.patch_dropout = p.patch_dropout;
  InTraining of(config, p.compute);
  StepOptions options;
  options.stream_loss = p.stream_loss;
  options.equal_captions = EqualCaptions::positives;
  const auto peak = [&](std::int64_t chunk, bool recompute) {
    StepOptions o = options;
    o.max_chunk = chunk;
    Context c = of.context;
    c.checkpoint_blocks = recompute;
    reset_peak_memory(kCpu);
    forward_backward(of.model, gray_pairs(config, p.pairs), o, c, *of.solo);
    return memory_report(kCpu).peak_bytes;
  };
  peak(0, false);
  const std::size_t whole = peak(0, false);
  const std::size_t resident = memory_report(kCpu).bytes;
  const std::vector<float> before = of.flat.values.to_vector();
  for (const double share : {2.0, 0.7, 0.3}) {
    const auto limit = resident + static_cast<std::size_t>(static_cast<double>(whole - resident) * share);
    MemoryBudget budget{p.pairs, 0, limit, {4}};
    const MemoryPlan plan = plan_memory(of.model, options, of.context, *of.solo, budget);
    const std::size_t measured = peak(plan.chunk, plan.checkpoint_blocks);
    INFO(p.name << ", " << share << " of " << whole << ": " << to_string(plan, budget) << "; measured " << measured);
    if (share > 1.0) CHECK((plan.chunk == 0 && !plan.checkpoint_blocks));
    if (share < 1.0) CHECK((plan.chunk > 0 || plan.checkpoint_blocks));
    CHECK(plan.step == Approx(static_cast<double>(measured)).epsilon(0.01));
    CHECK(plan.whole_batch == Approx(static_cast<double>(whole)).epsilon(0.01));
    CHECK(static_cast<double>(measured) <= 1.01 * static_cast<double>(limit));
  }
  CHECK(of.flat.values.to_vector() == before);
}

TEST_CASE("the plan's peak is that of the step: small pictures", "[train]") { check_plans({"small pictures", kConfig, 64}); }

TEST_CASE("the plan's peak is that of the step: bf16 and half of the patches", "[train]") {
  check_plans({"bf16, half of the patches", kConfig, 128, Compute::bf16, 0.5});
}

TEST_CASE("the plan's peak is that of the step: all logits in memory", "[train]") {
  check_plans({"all logits in memory", kConfig, 100, Compute::fp32, 0.0, false});
}

TEST_CASE("the plan's peak is that of the step: deep and narrow", "[train]") {
  check_plans({"deep and narrow",
               R"({"embed_dim": 64, "vision_cfg": {"image_size": 48, "layers": 8, "width": 64, "head_width": 32, "patch_size": 8},
                   "text_cfg": {"context_length": 16, "vocab_size": 1000, "width": 64, "heads": 2, "layers": 6}})",
               64});
}

TEST_CASE("the plan's peak is that of the step: a large batch of small towers", "[train]") {
  check_plans({"large batch of small towers", toy_vit_json(), 600});
}

TEST_CASE("the plan's peak is that of the step: ResNet", "[train]") { check_plans({"ResNet", toy_resnet_json(), 48}); }

TEST_CASE("captions that are equal, and batches too large to go through, are planned for", "[train]") {
  const RestoredThreads restored;
  set_thread_count(2);  // scratch depends on it
  InTraining of(parse_model_config(toy_vit_json(), "test"));
  const auto whole = [&](std::int64_t pairs, std::vector<std::int64_t> ids) {
    const std::vector<std::int64_t> lengths(ids.size(), 12);
    const MemoryPlan plan = of.plan({pairs, 0, std::size_t{1} << 40, lengths, std::move(ids)});
    return plan.whole_batch - static_cast<double>(plan.resident);
  };
  std::vector<std::int64_t> different(512);
  std::iota(different.begin(), different.end(), 0);
  // One caption in all is encoded once.
  CHECK(whole(512, std::vector<std::int64_t>(512, 0)) < 0.9 * whole(512, different));
  CHECK(whole(1024, different) == Approx(2.0 * whole(512, different)).epsilon(0.1));
  // 100,000 pairs are continued from 25,000 and 12,500; tiles of the loss take the same for all of them.
  const double known = whole(25'000, {}), a_pair = (known - whole(12'500, {})) / 12'500.0;
  CHECK(whole(100'000, {}) == Approx(known + 75'000.0 * a_pair).epsilon(0.01));
  CHECK(whole(70'001, {}) == Approx(known + 45'001.0 * a_pair).epsilon(0.05));
}

TEST_CASE("a limit that nothing fits into, and batches that wait", "[train]") {
  InTraining of(parse_model_config(kConfig, "test"));
  const std::size_t resident = memory_report(kCpu).bytes;
  CHECK_THROWS_WITH(of.plan({64, 0, resident}), Contains("--memory-limit") && Contains("is too small") &&
                                                    Contains("one encoded at a time") && Contains("lower --batch-size"));
  of.plan({64, 0, std::size_t{1} << 40});  // (memory that is kept for reuse has its final sizes)
  const MemoryPlan plan = of.plan({64, 0, std::size_t{1} << 40});
  const MemoryPlan queued = of.plan({64, 5, std::size_t{1} << 40});
  CHECK(queued.whole_batch - plan.whole_batch == 5U * 64U * 64U * 64U * 3U);
}

TEST_CASE("training with --memory-limit gives the result of training without, in less memory", "[train]") {
  const TemporaryFolder folder;
  TrainOptions o = toy_training(folder, toy_pairs(48, 70), kConfig);
  o.batch_size = 48;
  o.epochs = 3;
  o.lr = 1e-3;
  o.save_every_steps = 1;
  const auto run = [&](const std::string& name) {
    o.name = name;
    reset_peak_memory(kCpu);
    train(o);
    return memory_report(kCpu).peak_bytes;
  };
  const std::size_t whole = run("whole");
  o.memory_limit = static_cast<std::int64_t>(whole * 7 / 10);
  const std::size_t limited = run("limited");  // (since planning, which resets it)
  CHECK(limited <= static_cast<std::size_t>(o.memory_limit));
  const std::string log = read_file(folder / "logs/limited/out.log");
  CHECK_THAT(log, Contains("memory: ") && Contains("for a step of 48 pairs at once") && Contains(": chunks of ") &&
                      Contains("memory: the peak was "));
  const auto a = read_safetensors(folder / "logs/whole/model/open_clip_model.safetensors");
  const auto b = read_safetensors(folder / "logs/limited/model/open_clip_model.safetensors");
  for (const auto& [name, tensor] : a) {
    // AdamW makes steps of up to the learning rate of the noise where a gradient is exactly zero: keys' biases.
    if (name.find("in_proj_bias") != std::string::npos) continue;
    INFO(name);
    const std::vector<float> x = tensor.to_vector(), y = b.at(name).to_vector();
    double difference = 0.0, norm = 0.0;
    for (std::size_t i = 0; i < x.size(); ++i) {
      difference += std::pow(static_cast<double>(x[i]) - static_cast<double>(y[i]), 2);
      norm += std::pow(static_cast<double>(x[i]), 2);
    }
    CHECK(std::sqrt(difference) <= 1e-3 * std::sqrt(norm) + 1e-6);
  }

  // Resumed with another limit: the first choice stays, and so do the bits.
  fs::remove_all(folder / "logs/limited/checkpoints/step_3");
  const auto first = nlohmann::json::parse(read_file(folder / "logs/limited/checkpoints/step_2/state.json"));
  CHECK(first["max_chunk"].get<int>() > 0);
  CHECK(first["max_chunk"].get<int>() < 48);
  const std::string weights = read_file(folder / "logs/limited/model/open_clip_model.safetensors");
  o.memory_limit *= 100;
  o.resume = "latest";
  run("limited");
  CHECK(read_file(folder / "logs/limited/model/open_clip_model.safetensors") == weights);
  CHECK_THAT(read_file(folder / "logs/limited/out.log"), Contains("the run was begun with chunks of "));

  o.resume.clear();
  o.memory_limit = 1'000'000;
  CHECK_THROWS_WITH(run("small"), Contains("--memory-limit 1.0 MB is too small"));
  CHECK_FALSE(fs::exists(folder / "logs/small"));
}

TEST_CASE("batch norm meets at least two pairs at once, in chunks of nearly one size", "[train]") {
  const TemporaryFolder folder;
  TrainOptions o = toy_training(folder, toy_pairs(16), toy_resnet_json());
  o.batch_size = 16;
  o.epochs = 1;
  for (const int chunk : {2, 3, 5, 15}) {  // three of them with a rest of one
    o.max_chunk = chunk;
    o.name = "chunks-" + std::to_string(chunk);
    CHECK(train(o).steps == 1);
    CHECK_THAT(read_file(folder / ("logs/" + o.name + "/out.log")), Contains("batch norm takes its statistics from each chunk"));
  }
  o.resume = "latest";  // of the last one
  o.max_chunk = 4;
  o.epochs = 2;
  CHECK_THROWS_WITH(train(o), Contains("batch norm has met chunks of 15 ") && Contains("--max-chunk; give 15 again"));
  o.max_chunk = 0;
  CHECK(train(o).steps == 2);
  o.resume.clear();
  o.name = "refused";
  o.max_chunk = 1;
  CHECK_THROWS_WITH(train(o), Contains("16 pairs in chunks of at most 1 leave one alone; --max-chunk; give 3 or more"));
  o.max_chunk = 2;
  o.batch_size = 15;
  CHECK_THROWS_WITH(train(o), Contains("15 pairs in chunks of at most 2 leave one alone"));
  o.batch_size = 1;
  o.max_chunk = 0;
  CHECK_THROWS_WITH(train(o), Contains("batch norm needs two pairs at once; --batch-size; give 2 or more"));
  CHECK_FALSE(fs::exists(folder / "logs/refused"));
}

}  // namespace
}  // namespace twinlens::test
