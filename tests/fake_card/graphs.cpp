// Steps that are recorded once and queued again: what a graph holds is right for every batch of its size, and what comes of it is what
// comes of plain steps.

#include <algorithm>
#include <catch2/catch.hpp>
#include <random>

#include "bench/step/runner.h"
#include "tests/fake_card/step_kernels.h"
#include "tests/support/graph_steps.h"
#include "tests/support/temporary_folder.h"
#include "tests/support/toy_data.h"
#include "tests/support/toy_training.h"

#include "twinlens/clip/trainer.h"
#include "twinlens/core/autograd.h"
#include "twinlens/core/file.h"
#include "twinlens/core/ops.h"
#include "twinlens/core/random.h"
#include "twinlens/kernels/error.h"
#include "twinlens/kernels/graph.h"
#include "twinlens/kernels/memory.h"
#include "twinlens/nn/optimizer.h"

namespace twinlens::test {
namespace {

using Catch::Contains;

constexpr Device kCard{DeviceType::cuda, 0};

struct Kernels {
  Kernels() { set_step_kernels(); }
  ~Kernels() {
    synchronize(current_stream(kCard));
    fake_card().bodies.clear();
    fake_card().calls = nullptr;
    set_staged_copies(false);
  }
};

// Notes the kernels of each step that is queued, not launched.
struct NotedSteps {
  Kernels kernels;
  std::vector<Call> calls;  // of the step that was queued last
  GraphSteps all;
  std::function<void()> also;

  explicit NotedSteps(const std::string& model_json, Compute compute = Compute::fp32, double patch_dropout = 0.0)
      : all(model_json, kCard, compute, patch_dropout) {
    all.before = [this] { fake_card().calls = &calls; };
    all.after = [this] {
      if (also) also();
      fake_card().calls = nullptr;
    };
  }
  void queue(const StepInputs& inputs, bool look = false) {
    calls.clear();
    all.queue(inputs, look);
  }
};

void check_calls(const std::vector<Call>& got, const std::vector<Call>& want) {
  REQUIRE(got.size() == want.size());
  for (std::size_t i = 0; i < got.size(); ++i) {
    INFO("kernel " << i << ", " << want[i].kernel);
    REQUIRE(got[i].kernel == want[i].kernel);
    REQUIRE_FALSE(got[i].args.empty());
    if (!kClearsPadding) continue;
    REQUIRE(got[i].args.size() == want[i].args.size());
    const auto at = std::mismatch(got[i].args.begin(), got[i].args.end(), want[i].args.begin()).first - got[i].args.begin();
    INFO("byte " << at);
    REQUIRE((got[i].args == want[i].args));
  }
}

}  // namespace

TEST_CASE("what outlives its pool does not go into another one", "[fake]") {
  Stream& stream = current_stream(kCpu);
  std::optional<MemoryPool> pool;  // the second one lies where the first one did
  pool.emplace(stream);
  Memory kept;
  {
    const MemoryPool::Use use(*pool);
    kept = allocate(stream, 4096);
  }
  CHECK(pool->taken() > 0);
  pool.reset();
  pool.emplace(stream);
  kept = Memory();
  CHECK(pool->taken() == 0);
}

TEST_CASE("a graph does again what was recorded, on what lies there now", "[fake]") {
  const Kernels kernels;
  Stream& stream = current_stream(kCard);
  MemoryPool pool(stream);
  Tensor in = full({4}, 1.0, DType::f32, kCard), out = zeros({4}, DType::f32, kCard);
  const auto work = [&] {
    const NoGrad guard;
    out.copy_(affine(in, 2.0, 1.0));
  };
  CHECK_FALSE(Graph::record(pool, work).has_value());  // no block for the product
  {
    const MemoryPool::Use use(pool);
    work();
  }
  CHECK(pool.taken() == 0);
  const std::int64_t before = fake_card().allocations;
  const std::optional<Graph> graph = Graph::record(pool, work);
  REQUIRE(graph.has_value());
  CHECK(out.to_vector() == std::vector<float>(4, 3.0F));
  in.fill_(5.0);
  CHECK(out.to_vector() == std::vector<float>(4, 3.0F));  // nothing was done but recorded
  graph->launch();
  CHECK(out.to_vector() == std::vector<float>(4, 11.0F));
  in.fill_(7.0);
  graph->launch();
  CHECK(out.to_vector() == std::vector<float>(4, 15.0F));
  // Nobody else gets the pool's blocks, whatever becomes of the cache.
  const Tensor other = affine(in, 1.0, 0.0);
  graph->launch();
  CHECK(other.to_vector() == std::vector<float>(4, 7.0F));
  CHECK(fake_card().allocations <= before + 1);
  release_cached_memory(kCard);
  in.fill_(0.0);
  graph->launch();
  CHECK(out.to_vector() == std::vector<float>(4, 1.0F));
  // The host's memory is not what it was when the graph is launched.
  CHECK_THROWS_WITH(Graph::record(pool, [&] { in.copy_(full({4}, 2.0)); }),
                    Contains("copied between the host and a card while a step is recorded"));
  CHECK_THROWS_WITH(Graph::record(pool, [&] { in.to_vector(); }), Contains("leave --cuda-graphs out"));
  CHECK_FALSE(Graph::recording());
  in.fill_(1.0);
  CHECK(in.to_vector() == std::vector<float>(4, 1.0F));
}

TEST_CASE("what a graph reads is kept for it", "[fake]") {
  const Kernels kernels;
  MemoryPool pool(current_stream(kCard));
  const auto read = std::make_shared<int>(1);
  Graph::keep(read);  // nobody records
  CHECK(read.use_count() == 1);
  {
    const std::optional<Graph> graph = Graph::record(pool, [&] { Graph::keep(read); });
    CHECK(read.use_count() == 2);
  }
  CHECK(read.use_count() == 1);
}

TEST_CASE("offsets that a graph reads outlive those that are remembered", "[fake]") {
  const Kernels kernels;
  MemoryPool pool(current_stream(kCard));
  Tensor out = zeros({4}, DType::i64, kCard);
  const auto work = [&] { out.copy_(equal_offsets(3, 5, kCard).tensor()); };
  {
    const MemoryPool::Use use(pool);
    work();
  }
  const std::optional<Graph> graph = Graph::record(pool, work);
  REQUIRE(graph.has_value());
  std::vector<Tensor> others;
  for (std::int64_t i = 0; i < 100; ++i) {
    equal_offsets(3, 100 + i, kCard);
    others.push_back(zeros({4}, DType::i64, kCard));
  }
  graph->launch();
  CHECK(out.to_ints() == std::vector<std::int64_t>{0, 5, 10, 15});
}

TEST_CASE("the arguments of all kernels of a step are those of any batch of its size", "[fake]") {
  for (const Compute compute : {Compute::fp32, Compute::bf16}) {
    for (const bool resnet : {false, true}) {
      for (const double patch_dropout : {0.0, 0.5}) {
        if (resnet && patch_dropout > 0.0) continue;
        for (const bool recompute : {false, true}) {
          NotedSteps steps(resnet ? toy_resnet_json() : toy_vit_json(), compute, patch_dropout);
          steps.all.context.checkpoint_blocks = recompute;
          // Batches of one size, with different captions of different lengths.
          std::vector<StepInputs> same;
          const StepInputs first = steps.all.inputs_of(ragged_batch(32, 0, 9));
          for (std::uint64_t round = 1; same.size() < 4; ++round) {
            REQUIRE(round < 1000);
            StepInputs next = steps.all.inputs_of(ragged_batch(32, round, 9));
            const bool fits =
                next.captions.ids.count() == first.captions.ids.count() && next.captions.captions() == first.captions.captions();
            if (fits && next.captions.offsets.host() != first.captions.offsets.host()) same.push_back(std::move(next));
          }
          INFO((resnet ? "ResNet" : "ViT") << (compute == Compute::bf16 ? " bf16" : " fp32") << ", patch dropout " << patch_dropout);
          steps.queue(first);
          CHECK(steps.calls.size() > 100);
          steps.queue(same[0]);
          const std::vector<Call> recorded = steps.calls;
          REQUIRE(steps.all.graphs->counts().recorded == 1);
          steps.queue(same[1], true);
          check_calls(steps.calls, recorded);
          steps.queue(same[2]);
          CHECK(steps.calls.empty());  // launched
          CHECK(steps.all.graphs->counts().launched == 2);
          steps.queue(same[3], true);
          check_calls(steps.calls, recorded);
          // Another size has others.
          const StepInputs large = steps.all.inputs_of(ragged_batch(32, 1, 14));
          REQUIRE(large.captions.ids.count() != first.captions.ids.count());
          steps.queue(large);
          steps.queue(large);
          const std::vector<Call> of_large = steps.calls;
          CHECK(steps.all.graphs->counts().recorded == 2);
          CHECK(of_large != recorded);
          steps.queue(same[0]);
          CHECK(steps.calls.empty());
          steps.queue(large, true);
          check_calls(steps.calls, of_large);
        }
      }
    }
  }
}

TEST_CASE("a step whose arguments depend on the batch is seen, and so is one that keeps memory", "[fake]") {
  NotedSteps steps(toy_vit_json());
  const StepInputs inputs = steps.all.inputs_of(ragged_batch(16, 1, 3));
  double number = 0.0;
  steps.also = [&] { steps.all.record.slice(0, 0, 1).fill_(number++); };
  steps.queue(inputs);
  steps.queue(inputs);
  const std::vector<Call> recorded = steps.calls;
  steps.queue(inputs, true);
  CHECK(steps.calls != recorded);
  Tensor kept;
  steps.also = [&] { kept = zeros({100}, DType::f32, kCard); };
  CHECK_THROWS_WITH(steps.queue(inputs, true), Contains("graph: a step keeps 512 bytes when it is over; cuda; leave --cuda-graphs out"));
}

TEST_CASE("a recording that ends behind its kernels for want of memory leaves the step to be done once", "[fake]") {
  const Kernels kernels;
  GraphSteps plain(toy_vit_json(), kCard), graphs(toy_vit_json(), kCard);
  int calls = 0;
  graphs.after = [&] {
    if (++calls == 2) zeros({1 << 20}, DType::f32, kCard);  // while the second step is recorded
  };
  for (int round = 0; round < 5; ++round) {
    const PairBatch batch = ragged_batch(16, 1, 3);
    plain.queue(plain.inputs_of(batch), true);
    graphs.queue(graphs.inputs_of(batch));
    CHECK(graphs.flat->values.to_vector() == plain.flat->values.to_vector());
  }
  CHECK(calls == 4);  // plain, given up, plain, recorded
  CHECK(graphs.graphs->counts().plain == 2);
  CHECK(graphs.graphs->counts().launched == 3);
}

TEST_CASE("more sizes than there may be graphs are queued kernel by kernel", "[fake]") {
  NotedSteps steps(toy_vit_json());
  steps.all.options.row_buckets = false;
  const std::int64_t sizes = static_cast<std::int64_t>(GraphedSteps::kMostGraphs) + 3;
  for (int round = 0; round < 3; ++round) {
    for (std::int64_t i = 0; i < sizes; ++i) {
      PairBatch batch = ragged_batch(4, 1, 1);
      for (std::int64_t k = 0; k < i; ++k)
        batch.captions[static_cast<std::size_t>(k % 4)].insert(batch.captions[static_cast<std::size_t>(k % 4)].begin() + 1, 7);
      steps.all.options.encode_equal_once = false;
      steps.queue(steps.all.inputs_of(batch));
    }
  }
  CHECK(steps.all.graphs->counts().recorded == sizes - 3);
  CHECK(steps.all.graphs->counts().plain == sizes + 2 * 3);
  CHECK(steps.all.graphs->counts().launched == 2 * (sizes - 3));
  CHECK_THAT(steps.all.graphs->text(), Contains("graphs: 24 of 27 batch sizes, launched 48 times; 33 steps were queued kernel by kernel"));
}

TEST_CASE("the step that is timed gives the losses of plain steps when it is recorded", "[fake]") {
  const Kernels kernels;
  const TemporaryFolder folder;
  write_text(folder / "model.json", toy_vit_json());
  bench::RunnerOptions o;
  o.model = folder / "model.json";
  o.device = "cuda";
  o.batch_size = 12;
  o.learning_rate = 1e-3;
  o.grad_clip_norm = 1.0;
  const auto losses_of = [&](bool async, bool graphs) {
    o.async_step = async;
    o.cuda_graphs = graphs;
    bench::Runner runner(o);
    std::vector<Tensor> losses;
    for (int i = 0; i < 6; ++i) losses.push_back(runner.step());
    std::vector<float> out;
    for (const Tensor& loss : losses) out.push_back(loss.item());
    CHECK((runner.graphs().find("graphs: 1 of 1 batch sizes, launched 5 times") == 0) == graphs);
    return out;
  };
  const std::vector<float> plain = losses_of(false, false);
  CHECK(plain[5] < plain[0]);
  CHECK(losses_of(true, false) == plain);
  CHECK(losses_of(true, true) == plain);
  CHECK_THROWS_WITH(losses_of(false, true),
                    Contains("--cuda-graphs records steps that the host does not wait for; no --async-step; give it"));
  o.device = "cpu";
  CHECK_THROWS_WITH(losses_of(true, false), Contains("--async-step is for a card; --device cpu"));
}

namespace {

// Captions of different lengths, some of them equal.
struct Run {
  Kernels kernels;
  TemporaryFolder folder;
  TrainOptions o;

  Run() {
    std::vector<ToyPair> pairs = toy_pairs(48);
    std::mt19937_64 random(3);
    for (std::size_t i = 0; i < pairs.size(); ++i) {
      for (std::uint64_t words = random() % 6; words > 0; --words) pairs[i].caption += " and so on";
      if (i % 7 == 3) pairs[i].caption = pairs[i - 2].caption;
    }
    o = toy_training(folder, pairs);
    o.device = "cuda";
    o.batch_size = 8;
    o.epochs = 6;
    o.lr = 1e-3;
    o.grad_clip_norm = 1.0;
    o.save_frequency = 0;
    o.log_every_n_steps = 9;
    o.report_seconds = 1e9;
    o.async_step = true;
    o.prefetch_batches = 2;
  }
  std::string train_to(const std::string& name, bool graphs) {
    o.name = name;
    o.cuda_graphs = graphs;
    train(o);
    return read_file(folder / ("logs/" + name + "/model/open_clip_model.safetensors"));
  }
  std::string log(const std::string& name) const { return read_file(folder / ("logs/" + name + "/out.log")); }
};

void check_same_weights(const char* what, const std::function<void(Run&)>& change) {
  Run run;
  change(run);
  INFO(what);
  const std::int64_t before = fake_card().graph_launches;
  const std::string plain = run.train_to("plain", false);
  CHECK(fake_card().graph_launches == before);
  CHECK((run.train_to("graphs", true) == plain));
  CHECK(fake_card().graph_launches - before > 10);
  CHECK_THAT(run.log("graphs"), Contains("graphs: "));
}

}  // namespace

TEST_CASE("training in graphs gives the weights of plain steps", "[fake]") {
  check_same_weights("ViT, fp32", [](Run&) {});
  check_same_weights("ViT, bf16", [](Run& run) { run.o.precision = "amp_bf16"; });
  check_same_weights("recomputed", [](Run& run) { run.o.grad_checkpointing = run.o.recompute_cheap = true; });
  check_same_weights("patch dropout", [](Run& run) { run.o.force_patch_dropout = 0.5; });
  check_same_weights("an average, positives, smoothing", [](Run& run) {
    run.o.ema = 0.9;
    run.o.equal_captions = "positives";
    run.o.label_smoothing = 0.1;
  });
  check_same_weights("sigmoid", [](Run& run) { run.o.siglip = true; });
  check_same_weights("padded captions", [](Run& run) { run.o.pack_captions = false; });
  check_same_weights("ResNet", [](Run& run) { write_text(run.folder / "model.json", toy_resnet_json()); });
  check_same_weights("ResNet, bf16", [](Run& run) {
    write_text(run.folder / "model.json", toy_resnet_json());
    run.o.precision = "amp_bf16";
  });
}

TEST_CASE("a steady step in a graph neither allocates nor waits", "[fake]") {
  struct Counts {
    std::int64_t allocations, waits, pageable, kernels, launches;
  };
  const auto of_run = [](std::int64_t epochs, bool packed) {
    Run run;
    run.o.epochs = epochs;
    run.o.pack_captions = run.o.encode_equal_once = packed;  // else steps have one size
    run.o.log_every_n_steps = 100000;
    release_cached_memory(kCard);
    const auto now = [] {
      const FakeCard& c = fake_card();
      return Counts{c.allocations, c.waits, c.pageable_copies, c.kernels, c.graph_launches};
    };
    const Counts before = now();
    run.train_to("run", true);
    const Counts after = now();
    return Counts{after.allocations - before.allocations, after.waits - before.waits, after.pageable - before.pageable,
                  after.kernels - before.kernels, after.launches - before.launches};
  };
  of_run(2, false);  // (what is made once has been made)
  const Counts few = of_run(2, false), many = of_run(12, false);
  CHECK(many.allocations == few.allocations);
  CHECK(many.waits == few.waits);
  CHECK(many.pageable == few.pageable);
  CHECK(many.launches == few.launches + 60);
  CHECK(many.kernels - few.kernels == 60);  // pixels are copied, and that is all
  // Of packed captions there are some sizes, each of which is met for the first time once.
  const Counts some = of_run(6, true), more = of_run(24, true);
  CHECK(more.waits == some.waits);
  CHECK(more.pageable == some.pageable);
  CHECK(more.launches - some.launches > 90);  // of 108
}

TEST_CASE("what cannot be recorded is refused in one line", "[fake]") {
  Run run;
  run.o.cuda_graphs = true;
  const auto refused = [&](const char* what, const char* remedy, const std::function<void(TrainOptions&)>& change) {
    TrainOptions o = run.o;
    change(o);
    CHECK_THROWS_WITH(train(o), Contains("--cuda-graphs") && Contains(what) && Contains(remedy) && !Contains("\n"));
  };
  refused("is for a card; --device cpu", "use --device cuda", [](TrainOptions& o) {
    o.device = "cpu";
    o.async_step = false;
    o.prefetch_batches = 0;
  });
  refused("the host does not wait for", "--async-step --prefetch-batches 2", [](TrainOptions& o) { o.async_step = false; });
  refused("the host does not wait for", "--async-step --prefetch-batches 2", [](TrainOptions& o) { o.prefetch_batches = 0; });
  refused("steps of one chunk", "leave one out", [](TrainOptions& o) { o.max_chunk = 4; });
  refused("steps of one chunk", "leave one out", [](TrainOptions& o) { o.accum_freq = 2; });
  refused("steps of one chunk", "leave one out", [](TrainOptions& o) { o.memory_limit = 1'000'000'000; });
  refused("whose targets the host makes", "leave one out", [](TrainOptions& o) { o.stream_loss = false; });
}

}  // namespace twinlens::test
