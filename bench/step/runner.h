#pragma once
// Training steps on one batch, again and again, with a clock on their parts.

#include <array>
#include <memory>
#include <string>
#include <vector>

#include "clip/src/graphed_steps.h"
#include "clip/src/step_readback.h"

#include "twinlens/clip/train_step.h"
#include "twinlens/nn/optimizer.h"

namespace twinlens::bench {

struct RunnerOptions {
  std::string model = "ViT-B-32", precision = "fp32", device = "cpu", captions = "emoji";
  std::int64_t batch_size = 32;
  std::uint64_t seed = 0;
  StepOptions step;
  bool prune_last_block = true, checkpoint_blocks = false, recompute_cheap = false, weight_copies = true;
  double learning_rate = 1e-5, grad_clip_norm = 0.0;
  bool async_step = false;          // as train has it: the norm is judged on the card, the host hears of it a step later
  bool cuda_graphs = false;         // as train has it; with async_step
  bool update_in_backward = false;  // AdamWInBackward; its time counts as backward
  std::string forward;              // image or text: a runner for features() alone, without gradients and moments
};

// Seconds of one step. With chunks (StepOptions::max_chunk) the towers run twice and in turns: all of it counts as backward.
struct PhaseSeconds {
  static constexpr std::array<const char*, 5> kNames{"text_forward", "image_forward", "loss", "backward", "optimizer"};
  std::array<double, 5> of{};
};

class Runner {
 public:
  explicit Runner(const RunnerOptions& options);

  // One step as the trainer does it: forward, loss, backward, AdamW. The loss stays on the device. With `phases`, not with async_step, the
  // device is waited for between the parts, which costs a card some of its speed.
  Tensor step(PhaseSeconds* phases = nullptr);
  std::string graphs() const { return graphs_ != nullptr ? graphs_->text() : ""; }
  // Unit features of the batch's pictures or captions, by one tower as it embeds: nothing is kept for a backward pass. (B, E)
  Tensor features() const;
  bool forward_only() const { return !o_.forward.empty(); }
  void wait() const { synchronize(current_stream(device_)); }

  Clip& model() { return *model_; }
  const PairBatch& batch() const { return batch_; }
  Device device() const { return device_; }
  Compute compute() const { return context_.compute; }
  std::int64_t text_rows() const;  // tokens that the text tower computes

 private:
  Tensor loss_and_gradients(PhaseSeconds* phases);
  Tensor encode_text() const;
  void optimize();
  void check_options() const;
  Tensor async_step();

  RunnerOptions o_;
  Device device_;
  std::unique_ptr<Clip> model_;
  std::unique_ptr<FlatParameters> parameters_;
  std::unique_ptr<Communicator> communicator_ = solo_communicator();
  StepBlock block_;
  Tensor device_block_;  // block_ in the memory of the card; absent on the CPU
  AdamWOptions adamw_;
  std::unique_ptr<AdamWInBackward> in_backward_;
  Context context_;
  PairBatch batch_;
  Tensor loss_;                             // async_step: where a step leaves it
  std::unique_ptr<StepReadback> readback_;  // async_step
  std::unique_ptr<GraphedSteps> graphs_;    // cuda_graphs
};

}  // namespace twinlens::bench
