#pragma once
// Steps in graphs by hand, on a card and on what stands in for one.

#include <algorithm>
#include <functional>
#include <memory>
#include <random>
#include <string>
#include <vector>

#include "clip/src/graphed_steps.h"

#include "twinlens/core/random.h"
#include "twinlens/nn/optimizer.h"

namespace twinlens::test {

// Captions of up to `words` tokens beside their first and last, for a vocabulary of 1000; some stand there twice.
inline PairBatch ragged_batch(std::int64_t pairs, std::uint64_t round, std::uint64_t words) {
  PairBatch batch;
  batch.pixels = empty({pairs, 32, 32, 3}, DType::u8);
  std::mt19937_64 random(round);
  auto* const pixels = batch.pixels.data<std::uint8_t>();
  std::generate_n(pixels, batch.pixels.count(), [&] { return static_cast<std::uint8_t>(random() % 256); });
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
struct GraphSteps {
  ModelConfig config;
  std::unique_ptr<Clip> model;
  std::unique_ptr<FlatParameters> flat;
  std::unique_ptr<Communicator> solo = solo_communicator();
  StepBlock block;
  Tensor card_block, record;
  Context context;
  StepOptions options;
  std::unique_ptr<GraphedSteps> graphs;
  std::function<void()> before = [] {}, after = [] {};  // in a step

  GraphSteps(const std::string& model_json, Device device, Compute compute = Compute::fp32, double patch_dropout = 0.0)
      : config(parse_model_config(model_json, "test")) {
    config.vision.patch_dropout = patch_dropout;
    model = std::make_unique<Clip>(config, 1);
    move_to(*model, device);
    flat = std::make_unique<FlatParameters>(collect(*model), compute == Compute::bf16);
    record = zeros({static_cast<std::int64_t>(sizeof(StepRecord))}, DType::u8, device);
    block.learning_rate = 1e-3F;
    if (compute == Compute::f16) options.loss_scale = block.loss_scale = 1024.0F;
    card_block = step_block_on(block, device);
    context.training = true;
    context.compute = compute;
    context.step = static_cast<const StepBlock*>(card_block.raw());
    options.row_buckets = true;
    options.equal_captions = EqualCaptions::positives;
    graphs = std::make_unique<GraphedSteps>(device);
  }
  StepInputs inputs_of(const PairBatch& batch) {
    ++options.step;
    return step_inputs(*model, batch, 0, batch.pixels.size(0), options, true);
  }
  void queue(const StepInputs& inputs, bool look = false) {
    graphs->queue(
        inputs,
        [&](const StepInputs& in) {
          before();
          flat->forget_gradients();
          const Tensor loss = queue_forward_backward(*model, in, options, context, *solo);
          judge_step(*flat, loss, card_block, record, 1.0);
          adamw_step(*flat, card_block, {});
          model->clamp_logit_scale();
          after();
        },
        look);
  }
};

}  // namespace twinlens::test
