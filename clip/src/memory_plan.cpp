#include "clip/src/memory_plan.h"

#include <algorithm>
#include <cmath>
#include <fmt/format.h>
#include <numeric>

#include "twinlens/clip/loss.h"
#include "twinlens/core/autograd.h"
#include "twinlens/kernels/error.h"
#include "twinlens/kernels/memory.h"

namespace twinlens {
namespace {

// Bytes taken while f runs, above those that are there before.
template <class F>
double peak_of(Device device, F f) {
  reset_peak_memory(device);
  const std::size_t before = memory_report(device).bytes;
  f();
  return static_cast<double>(memory_report(device).peak_bytes - before);
}

PairBatch made_up_pairs(const ModelConfig& config, std::int64_t n) {
  const std::int64_t s = config.vision.image_size;
  PairBatch batch;
  batch.pixels = zeros({n, s, s, 3}, DType::u8);
  const auto end = static_cast<std::int32_t>(config.text.vocab_size - 1);
  std::vector<std::int32_t> caption(static_cast<std::size_t>(config.text.context_length), 1);
  caption.front() = end - 1;
  caption.back() = end;
  batch.captions.assign(static_cast<std::size_t>(n), caption);
  batch.caption_ids.resize(static_cast<std::size_t>(n));
  std::iota(batch.caption_ids.begin(), batch.caption_ids.end(), 0);
  return batch;
}

class Probe {
 public:
  Probe(Clip& model, const StepOptions& options, const Context& context, Communicator& communicator, std::int64_t pairs)
      : model_(model),
        options_(options),
        context_(context),
        communicator_(communicator),
        device_(model.logit_scale.value.device()),
        pairs_(static_cast<double>(pairs)) {
    options_.max_chunk = 0;
    context_.update_statistics = false;
    // Twice: the first step may take memory that stays (packed weights, scratch).
    step_of(1);
    const double one = step_of(1);
    const std::int64_t more = std::min<std::int64_t>(pairs, 4);
    slope_ = more > 1 ? (step_of(more) - one) / static_cast<double>(more - 1) : one;
    fixed_ = std::max(0.0, one - slope_);
    measure_loss();
  }

  // Of a step that encodes `chunk` pairs at once.
  double step(std::int64_t chunk) const {
    const auto c = static_cast<double>(chunk);
    if (c >= pairs_) return fixed_ + slope_ * pairs_ + loss_of(pairs_);
    // Features and their gradients, and the parts that are joined to them.
    const double features = pairs_ * 6.0 * static_cast<double>(model_.config.embed_dim) * sizeof(float);
    return picture_bytes() * pairs_ + features + std::max(loss_of(pairs_), fixed_ + slope_ * c);
  }
  double picture_bytes() const { return 3.0 * model_.config.vision.image_size * model_.config.vision.image_size; }

 private:
  double step_of(std::int64_t n) {
    return peak_of(device_, [&] { forward_backward(model_, made_up_pairs(model_.config, n), options_, context_, communicator_); });
  }
  double loss_peak(std::int64_t n) {
    return peak_of(device_, [&] {
      ClipLossInputs in;
      in.image = zeros({n, model_.config.embed_dim}, DType::f32, device_).set_requires_grad(true);
      in.text = zeros({n, model_.config.embed_dim}, DType::f32, device_).set_requires_grad(true);
      in.logit_scale = model_.logit_scale.value;
      in.caption_ids = arange(n).to(device_);
      backward(clip_loss(in, options_.equal_captions, communicator_));
    });
  }
  // a n + b n^2 through two measured sizes, small enough that measuring is no danger.
  void measure_loss() {
    const std::int64_t n = std::clamp<std::int64_t>(static_cast<std::int64_t>(pairs_), 2, 512), half = n / 2;
    loss_peak(n);
    const double whole = loss_peak(n) / static_cast<double>(n), part = loss_peak(half) / static_cast<double>(half);
    loss_square_ = std::max(0.0, (whole - part) / static_cast<double>(n - half));
    loss_line_ = std::max(0.0, whole - loss_square_ * static_cast<double>(n));
  }
  double loss_of(double n) const { return n * (loss_line_ + loss_square_ * n); }

  Clip& model_;
  StepOptions options_;
  Context context_;
  Communicator& communicator_;
  Device device_;
  double pairs_, slope_ = 0.0, fixed_ = 0.0, loss_line_ = 0.0, loss_square_ = 0.0;
};

std::string amount(double bytes) { return bytes < 1e9 ? fmt::format("{:.1f} MB", bytes / 1e6) : fmt::format("{:.2f} GB", bytes / 1e9); }

}  // namespace

MemoryPlan plan_memory(Clip& model, const StepOptions& options, const Context& context, Communicator& communicator,
                       const MemoryBudget& budget) {
  const Device device = model.logit_scale.value.device();
  const Probe probe(model, options, context, communicator, budget.pairs);
  MemoryPlan plan;
  plan.resident = memory_report(device).bytes;
  reset_peak_memory(device);
  // (Batches wait on the host.)
  const double waiting = device.is_cuda() ? 0.0 : static_cast<double>(budget.waiting * budget.pairs) * probe.picture_bytes();
  const double base = static_cast<double>(plan.resident) + waiting;
  const auto peak = [&](std::int64_t chunk) { return static_cast<std::size_t>(std::ceil(base + probe.step(chunk))); };
  const std::int64_t most = options.max_chunk > 0 ? std::min(options.max_chunk, budget.pairs) : budget.pairs;
  plan.whole_batch = peak(budget.pairs);
  if (peak(1) > budget.limit) {
    throw ConfigError(
        fmt::format("--memory-limit {} is too small: the model and its optimizer take {}, batches that wait {}, and a step of "
                    "{} pairs, one encoded at a time, {} in all; --memory-limit; raise it, or lower --batch-size",
                    amount(static_cast<double>(budget.limit)), amount(static_cast<double>(plan.resident)), amount(waiting), budget.pairs,
                    amount(static_cast<double>(peak(1)))));
  }
  std::int64_t fits = 1, too_many = most + 1;
  while (too_many - fits > 1) {
    const std::int64_t middle = fits + (too_many - fits) / 2;
    (peak(middle) <= budget.limit ? fits : too_many) = middle;
  }
  // Chunks of about one size: the same number of them, none larger than it must be.
  const std::int64_t chunks = (budget.pairs + fits - 1) / fits, even = (budget.pairs + chunks - 1) / chunks;
  plan.chunk = even >= budget.pairs ? 0 : even;
  plan.step = peak(even);
  return plan;
}

std::string to_string(const MemoryPlan& plan, const MemoryBudget& budget) {
  return fmt::format("memory: {} for the model and its optimizer, about {} for a step of {} pairs at once; limit {}: {}, about {}",
                     amount(static_cast<double>(plan.resident)), amount(static_cast<double>(plan.whole_batch)), budget.pairs,
                     amount(static_cast<double>(budget.limit)),
                     plan.chunk == 0 ? "the whole batch at once" : fmt::format("chunks of {} pairs", plan.chunk),
                     amount(static_cast<double>(plan.step)));
}

}  // namespace twinlens
