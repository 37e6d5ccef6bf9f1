// Memory on a card: what a step takes is known before it, what is too much is said.

#include "twinlens/kernels/memory.h"

#include <catch2/catch.hpp>

#include "clip/src/memory_plan.h"
#include "tests/fake_card/fake_card.h"
#include "tests/support/memory_runs.h"
#include "tests/support/temporary_folder.h"
#include "tests/support/toy_data.h"
#include "tests/support/toy_training.h"

#include "twinlens/clip/trainer.h"
#include "twinlens/core/file.h"
#include "twinlens/core/random.h"
#include "twinlens/kernels/error.h"
#include "twinlens/kernels/matmul.h"
#include "twinlens/kernels/scope.h"
#include "twinlens/nn/optimizer.h"

namespace twinlens::test {
namespace {

using Catch::Contains;

constexpr Device kCard{DeviceType::cuda, 0};

// Activations of 600 pairs outweigh the workspace of products, which has one size.
constexpr const char* kConfig =
    R"({"embed_dim": 64, "vision_cfg": {"image_size": 64, "layers": 3, "width": 128, "head_width": 32, "patch_size": 8},
        "text_cfg": {"context_length": 24, "vocab_size": 1000, "width": 64, "heads": 2, "layers": 2}})";

struct Case {
  const char* name;
  std::string config;
  Compute compute;
  std::int64_t pairs, chunk;
  bool recompute;
};

void check_prediction(const Case& c) {
  const ModelConfig config = parse_model_config(c.config, "test");
  Clip model(config, 1);
  move_to(model, kCard);
  FlatParameters flat(collect(model), c.compute == Compute::bf16);
  StepBlock block;
  const Tensor on_card = step_block_on(block, kCard);
  Context context;
  context.training = true;
  context.step = static_cast<const StepBlock*>(on_card.raw());
  context.compute = c.compute;
  context.checkpoint_blocks = c.recompute;
  const auto solo = solo_communicator();
  StepOptions options;
  options.max_chunk = c.chunk;
  const MemoryPlan plan = predict_memory(model, options, context, *solo, {c.pairs, 0, 0, {4}});
  release_cached_memory(kCard);
  reset_peak_memory(kCard);
  flat.forget_gradients();
  forward_backward(model, gray_pairs(config, c.pairs), options, context, *solo);
  flat.gradient_norm();
  adamw_step(flat, on_card, {});
  const auto seen = static_cast<double>(memory_report(kCard).peak_bytes);
  INFO(c.name << ": predicted " << plan.step << ", seen " << seen);
  CHECK(seen > 3.0 * static_cast<double>(kMatmulWorkspace));
  CHECK(plan.step == Approx(seen).epsilon(0.01));
  CHECK(static_cast<double>(plan.resident) < seen);
}

}  // namespace

TEST_CASE("the peak of a step on a card is predicted", "[fake]") {
  check_prediction({"ViT, fp32", kConfig, Compute::fp32, 600, 0, false});
  check_prediction({"ViT, bf16", kConfig, Compute::bf16, 600, 0, false});
  check_prediction({"ViT, f16", kConfig, Compute::f16, 600, 0, false});
  check_prediction({"ViT, bf16, recomputed", kConfig, Compute::bf16, 600, 0, true});
  check_prediction({"ViT, bf16, in chunks", kConfig, Compute::bf16, 600, 120, false});
  check_prediction({"ResNet, bf16", toy_resnet_json(), Compute::bf16, 800, 0, false});
  check_prediction({"ResNet, f16", toy_resnet_json(), Compute::f16, 800, 0, false});
}

TEST_CASE("what is too much for a card names the largest tags and the remedy", "[fake]") {
  Stream& stream = current_stream(kCard);
  release_cached_memory(kCard);
  fake_card().capacity = fake_card().bytes + 10'000'000;
  std::vector<Memory> blocks;
  for (const char* name : {"visual.transformer.resblocks.0", "visual.transformer.resblocks.1", "transformer.resblocks.0"}) {
    const Scope scope(name);
    blocks.push_back(allocate(stream, 2'000'000));
  }
  std::string text;
  try {
    const Scope scope("loss");
    blocks.push_back(allocate(stream, 8'000'000));
  } catch (const DeviceError& error) {
    text = error.what();
  }
  fake_card().capacity = kFakeCardBytes;
  CHECK_THAT(text, Contains("out of memory: 8.0 MB more are wanted in loss on cuda:0, which has") &&
                       Contains("largest: visual.transformer.resblocks.* 4.2 MB, transformer.resblocks.* 2.1 MB") &&
                       Contains("lower --batch-size or --max-chunk, use --grad-checkpointing, or let --memory-limit choose"));
  CHECK(text.find('\n') == std::string::npos);
  // What was kept for reuse is given back first, and the card waited for.
  fake_card().capacity = fake_card().bytes + 1'000'000;
  blocks.clear();
  fake_card().frees_late = true;
  CHECK_NOTHROW(allocate(stream, 5'000'000));
  fake_card().frees_late = false;
  fake_card().capacity = kFakeCardBytes;
}

TEST_CASE("training on a card says what a step will take, and what it took", "[fake]") {
  const TemporaryFolder folder;
  TrainOptions o = toy_training(folder, toy_pairs(24));
  o.device = "cuda";
  o.batch_size = 12;
  o.epochs = 2;
  o.save_frequency = 0;
  // Pictures that lie on the card beforehand outweigh all else.
  for (const std::int64_t ahead : {0, 20, 19}) {
    o.name = ahead == 0 ? "first" : std::to_string(ahead);
    o.async_step = o.cuda_graphs = ahead == 19;  // whose pixels lie there once more
    o.prefetch_batches = ahead;
    o.force_image_size = ahead == 0 ? 0 : 224;
    o.force_patch_dropout = ahead == 0 ? 0.0 : 0.9;
    train(o);
    const std::string log = read_file(folder / ("logs/" + o.name + "/out.log"));
    CHECK_THAT(log, Contains("memory: a step of 12 pairs is predicted to take ") && Contains(" of cuda:0, ") &&
                        Contains("there is room for") && Contains("memory: the first step took ") && Contains(" were predicted ("));
    CHECK_THAT(log, !Contains("it will not fit"));
    CHECK(std::abs(predicted_off_by(log)) < 1.0);
  }

  set_staged_copies(false);

  // A card that is too small.
  release_cached_memory(kCard);
  o.async_step = o.cuda_graphs = false;
  o.name = "second";
  o.prefetch_batches = 0;
  o.batch_size = 24;
  fake_card().capacity = 3'000'000;
  CHECK_THROWS_WITH(train(o), Contains("out of memory") && Contains("largest: ") && Contains("--memory-limit"));
  fake_card().capacity = kFakeCardBytes;
}

}  // namespace twinlens::test
