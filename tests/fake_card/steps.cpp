// Steps that the host does not wait for.

#include <catch2/catch.hpp>
#include <limits>
#include <nlohmann/json.hpp>
#include <set>

#include "tests/fake_card/fake_card.h"
#include "tests/support/temporary_folder.h"
#include "tests/support/toy_data.h"
#include "tests/support/toy_training.h"

#include "twinlens/clip/trainer.h"
#include "twinlens/core/file.h"
#include "twinlens/core/safetensors.h"
#include "twinlens/kernels/adamw.h"
#include "twinlens/kernels/copy.h"
#include "twinlens/kernels/error.h"
#include "twinlens/kernels/memory.h"
#include "twinlens/kernels/norm2.h"
#include "twinlens/kernels/step_verdict.h"

namespace twinlens::test {
namespace {

using Catch::Contains;

constexpr Device kCard{DeviceType::cuda, 0};

// A run whose kernels do nothing but those that decide about steps: every gradient is 1, its norm is what a test says.
struct Run {
  TemporaryFolder folder;
  TrainOptions o;
  std::int64_t norms = 0;             // asked for so far
  std::int64_t bad_step = -1;         // from 1: its norm is not finite
  std::set<std::int64_t> overflows;   // from 1: their norms are not finite either
  std::vector<std::int64_t> updates;  // steps whose update was made
  std::vector<std::int64_t> counts;   // which update it was, as AdamW counts
  std::vector<float> factors;         // what it multiplies gradients by

  Run() {
    o = toy_training(folder, toy_pairs(40));
    o.device = "cuda";
    o.batch_size = 8;
    o.epochs = 4;
    o.save_frequency = 0;
    o.log_every_n_steps = 1000;
    o.report_seconds = 1e9;
    o.spike_factor = 0.0;
    o.async_step = true;
    o.prefetch_batches = 2;
    set_fake_kernel_of<Fill, Scalar>();
    set_fake_kernel_of<Copy, Scalar>();
    set_fake_kernel_of<StepVerdict, Scalar>();
    set_fake_kernel<SumOfSquares>([this](const SumOfSquares& a) {
      *a.root = ++norms == bad_step || overflows.count(norms) > 0 ? std::numeric_limits<float>::infinity() : 2.0F;
      *a.nonfinite = 0;
    });
    set_fake_kernel<AdamW>([this](const AdamW& a) {
      if (a.step->skip != 0) return;
      updates.push_back(static_cast<std::int64_t>(a.step->step) + 1);
      counts.push_back(updates.back() - a.step->left_out);
      factors.push_back(a.step->clip_factor / a.step->loss_scale);
    });
  }
  ~Run() {
    synchronize(current_stream(kCard));
    fake_card().bodies.clear();
    set_staged_copies(false);
  }
  std::string log() const { return read_file(folder / "logs/run/out.log"); }
};

struct Counts {
  std::int64_t allocations, pinned, waits, pageable;
};

Counts counts() { return {fake_card().allocations, fake_card().pinned_allocations, fake_card().waits, fake_card().pageable_copies}; }

Counts of_run(std::int64_t epochs, bool async, bool packed = false) {
  Run run;
  run.o.epochs = epochs;
  run.o.async_step = async;
  run.o.prefetch_batches = async ? 2 : 0;
  run.o.pack_captions = run.o.encode_equal_once = packed;  // else steps have one size
  release_cached_memory(kCard);
  const Counts before = counts();
  train(run.o);
  const Counts after = counts();
  CHECK(run.norms >= 5 * epochs);
  return {after.allocations - before.allocations, after.pinned - before.pinned, after.waits - before.waits,
          after.pageable - before.pageable};
}

}  // namespace

TEST_CASE("a steady step neither allocates nor waits for the card", "[fake]") {
  of_run(2, true);  // (what is made once has been made)
  const Counts few = of_run(2, true), many = of_run(12, true);
  CHECK(many.allocations == few.allocations);
  CHECK(many.pinned < 10);  // as many batches as the loader and the ring happen to hold at once
  CHECK(many.waits == few.waits);
  CHECK(many.pageable == few.pageable);
  // Packed captions have ever new sizes, of which few are new to the cache.
  CHECK(of_run(12, true, true).allocations <= of_run(3, true, true).allocations + 5);
  // Without --async-step each of the 50 steps more waits for loss and norm.
  const Counts few_plain = of_run(2, false), many_plain = of_run(12, false);
  CHECK(many_plain.waits - few_plain.waits >= 100);
  CHECK(many_plain.pageable - few_plain.pageable >= 100);
}

TEST_CASE("all steps are updates, and all are heard of", "[fake]") {
  Run run;
  run.o.log_every_n_steps = 7;
  const TrainResult result = train(run.o);
  CHECK(result.steps == 20);
  std::vector<std::int64_t> all;
  for (std::int64_t i = 1; i <= 20; ++i) all.push_back(i);
  CHECK(run.updates == all);
  CHECK_THAT(run.log(), Contains("step 7/20") && Contains("step 14/20") && Contains("grad norm 2.000"));
}

TEST_CASE("a run with pictures prepared on the card does not wait in steady steps", "[fake]") {
  const auto of = [](std::int64_t epochs) {
    Run run;
    run.o.epochs = epochs;
    run.o.device_transforms = true;
    run.o.pack_captions = run.o.encode_equal_once = false;
    const Counts before = counts();
    train(run.o);
    const Counts after = counts();
    return Counts{after.allocations - before.allocations, 0, after.waits - before.waits, after.pageable - before.pageable};
  };
  of(2);
  const Counts few = of(2), many = of(8);
  CHECK(many.waits == few.waits);
  CHECK(many.pageable == few.pageable);
  CHECK(many.allocations <= few.allocations + 3);  // (batches differ in size, and grow)
}

TEST_CASE("a step that is not finite leaves the weights as they are, as do those behind it, and ends the run", "[fake]") {
  for (const std::int64_t bad : {1, 3, 8, 17}) {
    Run run;
    run.bad_step = bad;
    std::string error;
    try {
      train(run.o);
    } catch (const NumericError& e) {
      error = e.what();
    }
    synchronize(current_stream(kCard));
    INFO("bad step " << bad);
    CHECK_THAT(error, Contains("the gradient norm is not finite at step " + std::to_string(bad) + ";") && Contains("samples"));
    std::vector<std::int64_t> before;
    for (std::int64_t i = 1; i < bad; ++i) before.push_back(i);
    CHECK(run.updates == before);
    CHECK(run.norms <= bad + 1);  // the host hears of it a step later
  }
}

TEST_CASE("the loss scale that a card keeps leaves out the steps that the host's leaves out", "[fake]") {
  struct Seen {
    std::vector<std::int64_t> updates, counts;
    std::vector<float> factors;
    std::int64_t left_out = -1;
    double scale = 0.0;
    std::int64_t good_steps = -1;
    std::string error;
  };
  const auto of_run = [](const std::set<std::int64_t>& overflows, bool async, bool graphs) {
    Run run;
    run.overflows = overflows;
    run.o.precision = "amp";
    run.o.async_step = async;
    run.o.cuda_graphs = graphs;
    run.o.prefetch_batches = async ? 2 : 0;
    run.o.grad_clip_norm = 1.0;
    Seen seen;
    try {
      train(run.o);
      const auto state = nlohmann::json::parse(read_file(run.folder / "logs/run/checkpoints/step_20/state.json"));
      seen.scale = state["loss_scale"];
      seen.good_steps = state["loss_scale_good_steps"];
      seen.left_out = state["left_out"];
    } catch (const NumericError& error) {
      seen.error = std::string(error.what()).substr(0, 60);
    }
    synchronize(current_stream(kCard));
    seen.updates = run.updates;
    seen.counts = run.counts;
    seen.factors = run.factors;
    return seen;
  };
  std::set<std::int64_t> all;
  for (std::int64_t i = 1; i <= 20; ++i) all.insert(i);
  for (const std::set<std::int64_t>& overflows :
       {std::set<std::int64_t>{}, {1}, {1, 2, 3, 9}, {19}, {22}, all}) {  // (the last step is looked at by two norms)
    const Seen want = of_run(overflows, false, false);
    REQUIRE(want.updates.size() == 20 - overflows.size());
    for (std::size_t i = 0; i < want.counts.size(); ++i) CHECK(want.counts[i] == static_cast<std::int64_t>(i) + 1);
    if (want.error.empty()) CHECK(want.left_out == static_cast<std::int64_t>(overflows.size()));
    CHECK(want.error.empty() == (overflows.size() < 20));
    for (const bool graphs : {false, true}) {
      const Seen got = of_run(overflows, true, graphs);
      INFO(overflows.size() << " overflows" << (graphs ? ", graphs" : ""));
      CHECK(got.updates == want.updates);
      CHECK(got.counts == want.counts);
      CHECK(got.left_out == want.left_out);
      CHECK(got.factors == want.factors);
      CHECK(got.scale == want.scale);
      CHECK(got.good_steps == want.good_steps);
      CHECK(got.error == want.error);
    }
  }
}

TEST_CASE("a checkpoint is of steps that have been heard of", "[fake]") {
  Run run;
  run.o.save_every_steps = 4;
  run.o.async_save = false;
  run.bad_step = 4;
  CHECK_THROWS_AS(train(run.o), NumericError);
  CHECK_FALSE(std::filesystem::exists(run.folder / "logs/run/checkpoints/step_4"));
}

TEST_CASE("what does not go together with steps that nobody waits for is refused in one line", "[fake]") {
  Run run;
  run.o.precision = "amp";
  run.o.ema = 0.9;
  CHECK_THROWS_WITH(train(run.o), Contains("--async-step; --precision amp with --ema") && Contains("use amp_bf16"));
  run.o.ema = 0.0;
  run.o.precision = "fp32";
  run.o.on_nonfinite = "skip";
  CHECK_THROWS_WITH(train(run.o), Contains("--async-step; --on-nonfinite skip"));
  run.o.on_nonfinite = "stop";
  run.o.device = "cpu";
  CHECK_THROWS_WITH(train(run.o), Contains("--async-step is for a card; --device cpu; leave it out, or use --device cuda"));
  run.o.async_step = false;
  CHECK_THROWS_WITH(train(run.o), Contains("--prefetch-batches is for a card"));
  run.o.prefetch_batches = 0;
  run.o.device_transforms = true;
  CHECK_THROWS_WITH(train(run.o), Contains("--device-transforms is for a card; --device cpu; leave it out, or use --device cuda"));
  run.o.device = "cuda";
  CHECK_THROWS_WITH(train(run.o), Contains("--device-transforms works on batches") && Contains("give --prefetch-batches 2"));
}

}  // namespace twinlens::test
