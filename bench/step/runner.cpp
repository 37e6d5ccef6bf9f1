#include "bench/step/runner.h"

#include <chrono>
#include <unordered_map>

#include "bench/step/batch.h"
#include "clip/src/train_settings.h"

#include "twinlens/clip/loss.h"
#include "twinlens/clip/precision.h"
#include "twinlens/core/autograd.h"
#include "twinlens/core/ops.h"
#include "twinlens/core/random.h"
#include "twinlens/kernels/error.h"
#include "twinlens/kernels/memory.h"
#include "twinlens/kernels/scope.h"
#include "twinlens/nn/communicator.h"

namespace twinlens::bench {
namespace {

// Adds the time since it was made, or since the last part, to a part. Does nothing without a place to put it.
class Stopwatch {
 public:
  Stopwatch(const Runner& runner, PhaseSeconds* phases) : runner_(runner), phases_(phases), last_(std::chrono::steady_clock::now()) {}
  void part(std::size_t phase) {
    if (phases_ == nullptr) return;
    runner_.wait();
    const auto now = std::chrono::steady_clock::now();
    phases_->of[phase] += std::chrono::duration<double>(now - last_).count();
    last_ = now;
  }

 private:
  const Runner& runner_;
  PhaseSeconds* phases_;
  std::chrono::steady_clock::time_point last_;
};

// The captions that are encoded, and which of them each pair has (empty when each has its own).
struct Captions {
  std::vector<std::vector<std::int32_t>> tokens;
  std::vector<std::int64_t> row;
};

Captions distinct(const PairBatch& batch, bool equal_once) {
  Captions c;
  std::unordered_map<std::int64_t, std::int64_t> row_of;
  for (std::size_t i = 0; i < batch.captions.size(); ++i) {
    const auto next = static_cast<std::int64_t>(c.tokens.size());
    const auto [it, is_new] = row_of.try_emplace(equal_once ? batch.caption_ids[i] : static_cast<std::int64_t>(i), next);
    if (is_new) c.tokens.push_back(batch.captions[i]);
    c.row.push_back(it->second);
  }
  if (c.tokens.size() == c.row.size()) c.row.clear();
  return c;
}

}  // namespace

Runner::Runner(const RunnerOptions& options) : o_(options), device_(parse_device(options.device)) {
  if (device_.is_cuda() && cuda_device_count() <= device_.index) throw DeviceError(cuda_unavailable_reason());
  check_options();
  model_ = std::make_unique<Clip>(find_model_config(o_.model), o_.seed);
  if (auto* vit = std::get_if<VisionTransformer>(&model_->visual.body)) vit->pooled_last_block = o_.prune_last_block;
  model_->text.pooled_last_block = o_.prune_last_block;
  batch_ = make_batch(model_->config, o_.batch_size, o_.captions, o_.seed);
  move_to(*model_, device_);
  batch_.pixels = batch_.pixels.to(device_);
  block_.seed = o_.seed;
  block_.learning_rate = static_cast<float>(o_.learning_rate);
  context_.training = !forward_only();
  context_.compute = compute_of_precision(o_.precision, device_);
  context_.step = &block_;
  if (device_.is_cuda()) {
    device_block_ = step_block_on(block_, device_);
    context_.step = static_cast<const StepBlock*>(device_block_.raw());
  }
  context_.checkpoint_blocks = o_.checkpoint_blocks;
  context_.recompute_cheap = o_.recompute_cheap;
  const bool shadow = context_.compute == Compute::bf16 && o_.weight_copies;
  if (forward_only()) {
    if (shadow) round_weights(collect(*model_));
    return;
  }
  set_staged_copies(o_.async_step);
  if (o_.async_step) {
    loss_ = zeros({}, DType::f32, device_);
    readback_ = std::make_unique<StepReadback>(device_);
  }
  if (o_.cuda_graphs) graphs_ = std::make_unique<GraphedSteps>(device_);
  o_.step.row_buckets = o_.cuda_graphs;
  set_thrifty_memory(o_.update_in_backward);
  parameters_ = std::make_unique<FlatParameters>(collect(*model_), shadow, !o_.update_in_backward);
  adamw_ = adamw_options({}, model_->config);
  if (o_.update_in_backward) in_backward_ = std::make_unique<AdamWInBackward>(*parameters_, context_.step, adamw_, false);
}

void Runner::check_options() const {
  const auto refuse = [](const char* what, const char* remedy) { throw ConfigError(std::string(what) + "; " + remedy); };
  if (o_.cuda_graphs && !o_.async_step) refuse("--cuda-graphs records steps that the host does not wait for; no --async-step", "give it");
  if (o_.async_step && forward_only()) refuse("--async-step is for whole steps; --forward", "leave one out");
  if (o_.async_step && device_.is_cpu()) refuse("--async-step is for a card; --device cpu", "leave it out, or use --device cuda");
  if (o_.async_step && o_.update_in_backward)
    refuse("--async-step; --update-in-backward, which leaves no gradients to judge", "leave one out");
  if (o_.cuda_graphs && (o_.step.max_chunk > 0 || !o_.step.stream_loss))
    refuse("--cuda-graphs records steps of one chunk, with the loss in tiles; --max-chunk, --no-stream-loss", "leave them out");
}

std::int64_t Runner::text_rows() const {
  std::int64_t rows = 0;
  for (const auto& caption : distinct(batch_, o_.step.encode_equal_once).tokens) {
    rows += o_.step.pack_captions ? static_cast<std::int64_t>(caption.size()) : model_->config.text.context_length;
  }
  return rows;
}

Tensor Runner::encode_text() const {
  const Captions captions = distinct(batch_, o_.step.encode_equal_once);
  const TokenBatch tokens = batch_captions(model_->config.text, captions.tokens, o_.step.pack_captions).to(device_);
  Tensor text = model_->encode_text(tokens, context_);
  if (captions.row.empty()) return text;
  return index_select(text, 0, from_vector(captions.row, {static_cast<std::int64_t>(captions.row.size())}).to(device_));
}

Tensor Runner::features() const {
  const NoGrad guard;
  return o_.forward == "text" ? encode_text() : model_->encode_image(batch_.pixels, context_);
}

Tensor Runner::loss_and_gradients(PhaseSeconds* phases) {
  Stopwatch watch(*this, phases);
  if (o_.step.max_chunk > 0) {
    const double loss = forward_backward(*model_, batch_, o_.step, context_, *communicator_);
    watch.part(3);
    return scalar(static_cast<float>(loss));
  }
  const Tensor text = encode_text();
  watch.part(0);
  const Tensor image = model_->encode_image(batch_.pixels, context_);
  watch.part(1);
  Tensor loss;
  {
    const Scope scope("loss");
    const Tensor ids = from_vector(batch_.caption_ids, {static_cast<std::int64_t>(batch_.caption_ids.size())}).to(device_);
    const LossOptions options{o_.step.equal_captions, o_.step.loss, o_.step.stream_loss};
    loss = clip_loss({image, text, model_->logit_scale.value, ids, model_->logit_bias.value}, options, *communicator_);
  }
  watch.part(2);
  backward(loss);
  watch.part(3);
  return loss.detach();
}

void Runner::optimize() {
  if (in_backward_ != nullptr) {
    in_backward_->finish_step();
  } else {
    block_.clip_factor = o_.grad_clip_norm > 0.0 ? clip_factor(parameters_->gradient_norm(), o_.grad_clip_norm) : 1.0F;
    if (device_block_.defined()) {
      copy_step_block(block_, device_block_);
      adamw_step(*parameters_, device_block_, adamw_);
    } else {
      adamw_step(*parameters_, block_, adamw_);
    }
  }
  model_->clamp_logit_scale();
  block_.step += 1;
  if (in_backward_ != nullptr && device_block_.defined()) copy_step_block(block_, device_block_);
}

Tensor Runner::async_step() {
  copy_step_block(block_, device_block_);
  const StepInputs inputs = step_inputs(*model_, batch_, 0, o_.batch_size, o_.step, true);
  const auto work = [&](const StepInputs& in) {
    parameters_->forget_gradients();
    const Tensor loss = queue_forward_backward(*model_, in, o_.step, context_, *communicator_);
    judge_step(*parameters_, loss, device_block_, readback_->record(), o_.grad_clip_norm);
    adamw_step(*parameters_, device_block_, adamw_);
    model_->clamp_logit_scale();
    loss_.copy_(loss);
  };
  graphs_ != nullptr ? graphs_->queue(inputs, work, false) : work(inputs.to(device_));
  readback_->queue();
  if (readback_->queued() > 1) {
    const StepRecord record = readback_->take();
    if (record.skip != 0)
      throw NumericError("a step's loss (" + std::to_string(record.loss) + ") or norm (" + std::to_string(record.norm) +
                         ") is not finite, and later ones leave the update out; step " + std::to_string(block_.step) +
                         "; what is timed would not be training: lower --learning-rate");
  }
  block_.step += 1;
  return loss_.clone();
}

Tensor Runner::step(PhaseSeconds* phases) {
  if (readback_ != nullptr) return async_step();
  Stopwatch watch(*this, phases);
  parameters_->forget_gradients();
  watch.part(4);
  Tensor loss = loss_and_gradients(phases);
  Stopwatch after(*this, phases);
  optimize();
  after.part(4);
  return loss;
}

}  // namespace twinlens::bench
