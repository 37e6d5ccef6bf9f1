#include "clip/src/memory_plan.h"

#include <algorithm>
#include <cmath>
#include <fmt/format.h>
#include <numeric>
#include <optional>

#include "twinlens/clip/loss.h"
#include "twinlens/clip/model_cost.h"
#include "twinlens/core/autograd.h"
#include "twinlens/kernels/error.h"
#include "twinlens/kernels/memory.h"

namespace twinlens {
namespace {

constexpr std::int64_t kLossPairs = 2048;  // a larger loss is not measured but continued: from there on it grows by straight lines

// Bytes taken while f runs, above those that are there before.
template <class F>
double peak_of(Device device, F f) {
  reset_peak_memory(device);
  const std::size_t before = memory_report(device).bytes;
  f();
  return static_cast<double>(memory_report(device).peak_bytes - before);
}

PairBatch made_up_pairs(const ModelConfig& config, std::int64_t n, const std::vector<std::int64_t>& lengths) {
  const std::int64_t s = config.vision.image_size, most = config.text.context_length;
  PairBatch batch;
  batch.pixels = zeros({n, s, s, 3}, DType::u8);
  const auto end = static_cast<std::int32_t>(config.text.vocab_size - 1);
  for (std::int64_t i = 0; i < n; ++i) {
    const std::int64_t length =
        lengths.empty() ? most : std::clamp<std::int64_t>(lengths[static_cast<std::size_t>(i) % lengths.size()], 2, most);
    std::vector<std::int32_t> caption(static_cast<std::size_t>(length), 1);
    caption.front() = end - 1;
    caption.back() = end;
    batch.captions.push_back(std::move(caption));
  }
  batch.caption_ids.resize(static_cast<std::size_t>(n));
  std::iota(batch.caption_ids.begin(), batch.caption_ids.end(), 0);
  return batch;
}

// Peaks at some sizes, in rising order; between them and beyond the last a straight line.
class Line {
 public:
  void add(double n, double bytes) { points_.push_back({n, bytes}); }
  double last() const { return points_.empty() ? 0.0 : points_.back().n; }
  double at(double n) const {
    if (points_.size() == 1) return points_[0].bytes * n / points_[0].n;
    std::size_t i = 1;
    while (i + 1 < points_.size() && points_[i].n < n) ++i;
    const Point &a = points_[i - 1], &b = points_[i];
    return a.bytes + (b.bytes - a.bytes) * (n - a.n) / (b.n - a.n);
  }

 private:
  struct Point {
    double n, bytes;
  };
  std::vector<Point> points_;
};

class Probe {
 public:
  Probe(Clip& model, const StepOptions& options, const Context& context, Communicator& communicator, const MemoryBudget& budget)
      : model_(model),
        options_(options),
        context_(context),
        communicator_(communicator),
        device_(model.logit_scale.value.device()),
        budget_(budget),
        pairs_(static_cast<double>(budget.pairs)) {
    options_.max_chunk = 0;
    context_.update_statistics = false;
    step_of(1);  // the first step may take memory that stays (packed weights, scratch)
    measure_loss();
  }

  // Measures one way of doing the towers. Steps that would not fit into `room` are not tried.
  Line towers(bool checkpoint_blocks, double room) {
    context_.checkpoint_blocks = checkpoint_blocks;
    const ModelCost cost = model_cost(model_.config);
    const double per_pair = 3.0 * (cost.image_gflops + cost.text_gflops);
    Line line;
    double spent = 0.0;
    for (double n = 1.0;; n = std::min(2.0 * n, pairs_)) {
      line.add(n, step_of(static_cast<std::int64_t>(n)));
      spent += n * per_pair;
      const double next = std::min(2.0 * n, pairs_);
      const bool needed = n < 2.0 && pairs_ > 1.0;
      if (n >= pairs_ || (!needed && (spent + next * per_pair > budget_.probe_gflops || line.at(next) > room))) return line;
    }
  }

  // Of a step that encodes `chunk` pairs at once.
  double step(const Line& towers, std::int64_t chunk) const {
    const auto c = static_cast<double>(chunk);
    if (c >= pairs_) {
      // The probes had a loss of their own size in them.
      const double measured = std::min(towers.last(), pairs_);
      return towers.at(pairs_) + std::max(0.0, loss_.at(pairs_) - loss_.at(measured) * pairs_ / measured);
    }
    // Pictures, features and their gradients are there throughout; the loss is over when the chunks are encoded again.
    const double features = pairs_ * 4.0 * static_cast<double>(model_.config.embed_dim) * sizeof(float);
    return picture_bytes() * pairs_ + std::max(loss_.at(pairs_), features + towers.at(c) - picture_bytes() * c);
  }
  double picture_bytes() const { return 3.0 * model_.config.vision.image_size * model_.config.vision.image_size; }

 private:
  double step_of(std::int64_t n) {
    return peak_of(device_, [&] {
      forward_backward(model_, made_up_pairs(model_.config, n, budget_.caption_lengths), options_, context_, communicator_);
    });
  }
  double loss_peak(std::int64_t n) {
    return peak_of(device_, [&] {
      ClipLossInputs in;
      in.image = zeros({n, model_.config.embed_dim}, DType::f32, device_).set_requires_grad(true);
      in.text = zeros({n, model_.config.embed_dim}, DType::f32, device_).set_requires_grad(true);
      in.logit_scale = model_.logit_scale.value;
      in.logit_bias = model_.logit_bias.value;
      in.caption_ids = arange(n).to(device_);
      backward(clip_loss(in, {options_.equal_captions, options_.loss, options_.stream_loss}, communicator_));
    });
  }
  void measure_loss() {
    const std::int64_t most = std::min<std::int64_t>(budget_.pairs, options_.stream_loss ? kLossPairs : 512);
    loss_peak(1);
    for (std::int64_t n = 1;; n = std::min(2 * n, most)) {
      loss_.add(static_cast<double>(n), loss_peak(n));
      if (n == most) break;
    }
    if (most == budget_.pairs || options_.stream_loss) return;
    // All logits in memory: the square of the batch.
    const auto n = static_cast<double>(most);
    const double whole = loss_.at(n) / n, part = loss_.at(n / 2.0) / (n / 2.0), square = std::max(0.0, (whole - part) / (n / 2.0));
    for (double m = 2.0 * n; m < 2.0 * pairs_; m *= 2.0) {
      const double at = std::min(m, pairs_);
      loss_.add(at, at * (whole - square * n) + square * at * at);
    }
  }

  Clip& model_;
  StepOptions options_;
  Context context_;
  Communicator& communicator_;
  Device device_;
  const MemoryBudget& budget_;
  double pairs_;
  Line loss_;
};

std::string amount(double bytes) { return bytes < 1e9 ? fmt::format("{:.1f} MB", bytes / 1e6) : fmt::format("{:.2f} GB", bytes / 1e9); }

}  // namespace

MemoryPlan plan_memory(Clip& model, const StepOptions& options, const Context& context, Communicator& communicator,
                       const MemoryBudget& budget) {
  const Device device = model.logit_scale.value.device();
  Probe probe(model, options, context, communicator, budget);
  MemoryPlan plan;
  plan.resident = memory_report(device).bytes;
  // (Batches wait on the host.)
  const double waiting = device.is_cuda() ? 0.0 : static_cast<double>(budget.waiting * budget.pairs) * probe.picture_bytes();
  const double base = static_cast<double>(plan.resident) + waiting;
  const double room = static_cast<double>(budget.limit) - base;
  const auto peak = [&](const Line& towers, std::int64_t chunk) {
    return static_cast<std::size_t>(std::ceil(base + probe.step(towers, chunk)));
  };
  const std::int64_t most = options.max_chunk > 0 ? std::min(options.max_chunk, budget.pairs) : budget.pairs;
  plan.checkpoint_blocks = context.checkpoint_blocks;
  Line towers = probe.towers(context.checkpoint_blocks, room);
  plan.whole_batch = peak(towers, budget.pairs);
  const auto fits = [&](std::int64_t chunk) { return peak(towers, chunk) <= budget.limit; };
  if (!fits(most) && !context.checkpoint_blocks && !model.config.vision.is_resnet()) {
    const Line recomputed = probe.towers(true, room);
    if ((most == budget.pairs && peak(recomputed, most) <= budget.limit) || !fits(1)) {
      towers = recomputed;
      plan.checkpoint_blocks = true;
    }
  }
  reset_peak_memory(device);
  if (!fits(1)) {
    throw ConfigError(
        fmt::format("--memory-limit {} is too small: the model and its optimizer take {}, batches that wait {}, and a step of "
                    "{} pairs, one encoded at a time, {} in all; --memory-limit; raise it, or lower --batch-size",
                    amount(static_cast<double>(budget.limit)), amount(static_cast<double>(plan.resident)), amount(waiting), budget.pairs,
                    amount(static_cast<double>(peak(towers, 1)))));
  }
  std::int64_t good = 1, too_many = most + 1;
  while (too_many - good > 1) {
    const std::int64_t middle = good + (too_many - good) / 2;
    (fits(middle) ? good : too_many) = middle;
  }
  // Chunks of about one size: the same number of them, none larger than it must be.
  const std::int64_t chunks = (budget.pairs + good - 1) / good, even = (budget.pairs + chunks - 1) / chunks;
  plan.chunk = even >= budget.pairs ? 0 : even;
  plan.step = peak(towers, even);
  return plan;
}

std::string to_string(const MemoryPlan& plan, const MemoryBudget& budget) {
  return fmt::format("memory: {} for the model and its optimizer, about {} for a step of {} pairs at once; limit {}: {}{}, about {}",
                     amount(static_cast<double>(plan.resident)), amount(static_cast<double>(plan.whole_batch)), budget.pairs,
                     amount(static_cast<double>(budget.limit)),
                     plan.chunk == 0 ? "the whole batch at once" : fmt::format("chunks of {} pairs, features cached", plan.chunk),
                     plan.checkpoint_blocks ? ", blocks recomputed in backward" : "", amount(static_cast<double>(plan.step)));
}

}  // namespace twinlens
