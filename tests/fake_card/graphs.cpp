// Steps that are recorded once and queued again: what a graph holds is right for every batch of its size, and what comes of it is what
// comes of plain steps.

#include <algorithm>
#include <catch2/catch.hpp>
#include <random>

#include "clip/src/graphed_steps.h"
#include "tests/fake_card/step_kernels.h"
#include "tests/support/temporary_folder.h"
#include "tests/support/toy_data.h"

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

// `words` of each caption beside its first and last token.
PairBatch batch_of(std::int64_t pairs, std::uint64_t round, std::uint64_t words) {
  PairBatch batch;
  batch.pixels = full({pairs, 32, 32, 3}, static_cast<double>(round * 20 % 256), DType::u8).to(kCard);
  std::mt19937_64 random(round);
  for (std::int64_t i = 0; i < pairs; ++i) {
    std::vector<std::int32_t> caption{998};
    for (std::uint64_t t = 1 + random() % words; t > 0; --t) caption.push_back(static_cast<std::int32_t>(random() % 990));
    caption.push_back(999);
    const bool repeats = i > 0 && random() % 5 == 0;
    batch.captions.push_back(repeats ? batch.captions.back() : caption);
    batch.caption_ids.push_back(repeats ? batch.caption_ids.back() : i);
    batch.samples.push_back(static_cast<std::int64_t>(random() % 1000));
  }
  return batch;
}

// The parts of a training step, as the trainer has them.
struct Steps {
  Kernels kernels;
  ModelConfig config;
  std::unique_ptr<Clip> model;
  std::unique_ptr<FlatParameters> flat;
  std::unique_ptr<Communicator> solo = solo_communicator();
  StepBlock block;
  Tensor card_block, record = zeros({static_cast<std::int64_t>(sizeof(StepRecord))}, DType::u8, kCard);
  Context context;
  StepOptions options;
  std::unique_ptr<GraphedSteps> graphs;
  std::vector<Call> calls;  // of the step that was queued last
  std::function<void()> also;

  explicit Steps(const std::string& model_json, Compute compute = Compute::fp32, double patch_dropout = 0.0)
      : config(parse_model_config(model_json, "test")) {
    config.vision.patch_dropout = patch_dropout;
    model = std::make_unique<Clip>(config, 1);
    move_to(*model, kCard);
    flat = std::make_unique<FlatParameters>(collect(*model), compute == Compute::bf16);
    card_block = step_block_on(block, kCard);
    context.training = true;
    context.compute = compute;
    context.step = static_cast<const StepBlock*>(card_block.raw());
    options.row_buckets = true;
    options.equal_captions = EqualCaptions::positives;
    graphs = std::make_unique<GraphedSteps>(kCard);
  }
  StepInputs inputs_of(const PairBatch& batch) {
    ++options.step;
    return step_inputs(*model, batch, 0, batch.pixels.size(0), options, true);
  }
  void queue(const StepInputs& inputs, bool look = false) {
    calls.clear();
    graphs->queue(
        inputs,
        [&](const StepInputs& in) {
          fake_card().calls = &calls;
          flat->forget_gradients();
          const Tensor loss = queue_forward_backward(*model, in, options, context, *solo);
          judge_step(*flat, loss, card_block, record, 1.0);
          adamw_step(*flat, card_block, {});
          model->clamp_logit_scale();
          if (also) also();
          fake_card().calls = nullptr;
        },
        look);
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

TEST_CASE("the arguments of all kernels of a step are those of any batch of its size", "[fake]") {
  for (const Compute compute : {Compute::fp32, Compute::bf16}) {
    for (const bool resnet : {false, true}) {
      for (const double patch_dropout : {0.0, 0.5}) {
        if (resnet && patch_dropout > 0.0) continue;
        for (const bool recompute : {false, true}) {
          Steps steps(resnet ? toy_resnet_json() : toy_vit_json(), compute, patch_dropout);
          steps.context.checkpoint_blocks = recompute;
          // Batches of one size, with different captions of different lengths.
          std::vector<StepInputs> same;
          const StepInputs first = steps.inputs_of(batch_of(32, 0, 9));
          for (std::uint64_t round = 1; same.size() < 4; ++round) {
            REQUIRE(round < 1000);
            StepInputs next = steps.inputs_of(batch_of(32, round, 9));
            const bool fits =
                next.captions.ids.count() == first.captions.ids.count() && next.captions.captions() == first.captions.captions();
            if (fits && next.captions.offsets.host() != first.captions.offsets.host()) same.push_back(std::move(next));
          }
          INFO((resnet ? "ResNet" : "ViT") << (compute == Compute::bf16 ? " bf16" : " fp32") << ", patch dropout " << patch_dropout);
          steps.queue(first);
          CHECK(steps.calls.size() > 100);
          steps.queue(same[0]);
          const std::vector<Call> recorded = steps.calls;
          REQUIRE(steps.graphs->counts().recorded == 1);
          steps.queue(same[1], true);
          check_calls(steps.calls, recorded);
          steps.queue(same[2]);
          CHECK(steps.calls.empty());  // launched
          CHECK(steps.graphs->counts().launched == 2);
          steps.queue(same[3], true);
          check_calls(steps.calls, recorded);
          // Another size has others.
          const StepInputs large = steps.inputs_of(batch_of(32, 1, 14));
          REQUIRE(large.captions.ids.count() != first.captions.ids.count());
          steps.queue(large);
          steps.queue(large);
          const std::vector<Call> of_large = steps.calls;
          CHECK(steps.graphs->counts().recorded == 2);
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
  Steps steps(toy_vit_json());
  const StepInputs inputs = steps.inputs_of(batch_of(16, 1, 3));
  double number = 0.0;
  steps.also = [&] { steps.record.slice(0, 0, 1).fill_(number++); };
  steps.queue(inputs);
  steps.queue(inputs);
  const std::vector<Call> recorded = steps.calls;
  steps.queue(inputs, true);
  CHECK(steps.calls != recorded);
  Tensor kept;
  steps.also = [&] { kept = zeros({100}, DType::f32, kCard); };
  CHECK_THROWS_WITH(steps.queue(inputs, true), Contains("graph: a step keeps 512 bytes when it is over; cuda; leave --cuda-graphs out"));
}

TEST_CASE("more sizes than there may be graphs are queued kernel by kernel", "[fake]") {
  Steps steps(toy_vit_json());
  steps.options.row_buckets = false;
  const std::int64_t sizes = static_cast<std::int64_t>(GraphedSteps::kMostGraphs) + 3;
  for (int round = 0; round < 3; ++round) {
    for (std::int64_t i = 0; i < sizes; ++i) {
      PairBatch batch = batch_of(4, 1, 1);
      for (std::int64_t k = 0; k < i; ++k)
        batch.captions[static_cast<std::size_t>(k % 4)].insert(batch.captions[static_cast<std::size_t>(k % 4)].begin() + 1, 7);
      steps.options.encode_equal_once = false;
      steps.queue(steps.inputs_of(batch));
    }
  }
  CHECK(steps.graphs->counts().recorded == sizes - 3);
  CHECK(steps.graphs->counts().plain == sizes + 2 * 3);
  CHECK(steps.graphs->counts().launched == 2 * (sizes - 3));
  CHECK_THAT(steps.graphs->text(), Contains("graphs: 24 of 27 batch sizes, launched 48 times; 33 steps were queued kernel by kernel"));
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
    write_toy_folder(folder / "data", pairs);
    write_text(folder / "model.json", toy_vit_json());
    o.train_data = folder / "data";
    o.model = folder / "model.json";
    o.logs = folder / "logs";
    o.device = "cuda";
    o.batch_size = 8;
    o.epochs = 6;
    o.lr = 1e-3;
    o.grad_clip_norm = 1.0;
    o.workers = 1;
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
