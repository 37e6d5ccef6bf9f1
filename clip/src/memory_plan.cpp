#include "clip/src/memory_plan.h"

#include <algorithm>
#include <cmath>
#include <fmt/format.h>
#include <limits>
#include <sys/resource.h>

#include "clip/src/chunks.h"

#include "twinlens/kernels/dry_run.h"
#include "twinlens/kernels/error.h"
#include "twinlens/kernels/memory.h"

namespace twinlens {
namespace {

// A larger batch is continued from two of its parts by a straight line; the loss in tiles would take seconds to go through dry.
constexpr std::int64_t kMostPairs = 1 << 15;

// What the planner supposes of captions: those looked at, again and again, beginning where `window` of them are longest.
class MadeUpPairs {
 public:
  MadeUpPairs(const ModelConfig& config, const MemoryBudget& budget, Device device)
      : config_(config), budget_(budget), device_(budget.pixels_on_card ? device : kCpu) {}

  PairBatch operator()(std::int64_t n, std::int64_t window) const {
    const std::int64_t s = config_.vision.image_size, known = static_cast<std::int64_t>(budget_.caption_lengths.size());
    const std::int64_t first = known > window ? longest(window) : 0;
    const auto end = static_cast<std::int32_t>(config_.text.vocab_size - 1);
    PairBatch batch;
    batch.pixels = empty({n, s, s, 3}, DType::u8, device_);
    for (std::int64_t i = 0; i < n; ++i) {
      const auto at = static_cast<std::size_t>(known > 0 ? (first + i) % known : 0);
      std::vector<std::int32_t> caption(static_cast<std::size_t>(known > 0 ? length(at) : config_.text.context_length), 1);
      caption.back() = end;
      batch.captions.push_back(std::move(caption));
      // (Captions beyond those looked at are thought of as new ones.)
      batch.caption_ids.push_back(budget_.caption_ids.empty() ? i : budget_.caption_ids[at] + i / known * known);
    }
    return batch;
  }

 private:
  std::int64_t length(std::size_t at) const {
    return std::clamp<std::int64_t>(budget_.caption_lengths[at], 2, config_.text.context_length);
  }
  std::int64_t longest(std::int64_t window) const {
    const std::size_t known = budget_.caption_lengths.size();
    std::int64_t sum = 0, most = 0, first = 0;
    for (std::size_t i = 0; i < static_cast<std::size_t>(window); ++i) sum += length(i);
    for (std::size_t i = 0; i < known; ++i) {
      if (sum > most) {
        most = sum;
        first = static_cast<std::int64_t>(i);
      }
      sum += length((i + static_cast<std::size_t>(window)) % known) - length(i);
    }
    return first;
  }

  const ModelConfig& config_;
  const MemoryBudget& budget_;
  Device device_;
};

class Rehearsal {
 public:
  Rehearsal(Clip& model, const StepOptions& options, const Context& context, Communicator& communicator, const MemoryBudget& budget)
      : model_(model),
        options_(options),
        context_(context),
        communicator_(communicator),
        device_(model.logit_scale.value.device()),
        pairs_(budget.pairs),
        update_(static_cast<double>(budget.update)),
        made_up_(model.config, budget, device_) {
    // One real step of the fewest pairs: what it leaves behind (gradients that were not there, what the libraries keep) is resident.
    context_.update_statistics = false;
    options_.max_chunk = 0;
    reset_peak_memory(device_);
    forward_backward(model_, made_up_(least(), least()), options_, context_, communicator_);
  }

  // Pairs of the smallest chunks: batch norm needs two values a channel, and a ResNet may end in a map of one pixel. (An odd batch in
  // chunks of at most two has one of one pair.)
  std::int64_t least() const { return std::min<std::int64_t>(pairs_, model_.config.vision.is_resnet() ? 2 + pairs_ % 2 : 1); }

  // Bytes of batches that wait in the memory of the step.
  double waiting(const MemoryBudget& budget) const {
    const std::int64_t s = model_.config.vision.image_size;
    const DryRun dry;
    const Tensor batch = empty({budget.pairs, s, s, 3}, DType::u8, device_);
    return static_cast<double>(budget.waiting) * static_cast<double>(dry.bytes(device_));
  }

  // Of the whole step, with `base` bytes there before.
  double peak(double base, std::int64_t chunk, bool recompute) { return std::ceil(base + std::max(step(chunk, recompute), update_)); }

  // Peak of a step that encodes `chunk` pairs at once, above what is there before; infinite where no machine has as much.
  double step(std::int64_t chunk, bool recompute) {
    context_.checkpoint_blocks = recompute;
    // (All logits in memory are the square of the batch, and soon gone through.)
    if (pairs_ <= kMostPairs || !options_.stream_loss) return peak_of(pairs_, chunk);
    std::int64_t part = pairs_;
    while (part > kMostPairs) part /= 2;
    const auto chunk_of = [&](std::int64_t n) { return chunk >= part / 2 ? chunk * n / pairs_ : chunk; };
    const double whole = peak_of(part, chunk_of(part)), half = peak_of(part / 2, chunk_of(part / 2));
    return whole + (whole - half) * static_cast<double>(pairs_ - part) / static_cast<double>(part - part / 2);
  }

 private:
  double peak_of(std::int64_t n, std::int64_t chunk) {
    options_.max_chunk = chunk;
    FeatureFigures figures;
    try {
      const DryRun dry;
      forward_backward(model_, made_up_(n, Chunks(n, chunk).largest), options_, context_, communicator_, &figures);
      return static_cast<double>(dry.peak_bytes(device_));
    } catch (const DeviceError&) {
      return std::numeric_limits<double>::infinity();
    }
  }

  Clip& model_;
  StepOptions options_;
  Context context_;
  Communicator& communicator_;
  Device device_;
  std::int64_t pairs_;
  double update_;
  MadeUpPairs made_up_;
};

std::string amount(double bytes) {
  if (std::isinf(bytes)) return "more than any machine has";
  if (bytes < 1e6) return fmt::format("{:.0f} bytes", bytes);
  return bytes < 1e9 ? fmt::format("{:.1f} MB", bytes / 1e6) : fmt::format("{:.2f} GB", bytes / 1e9);
}

}  // namespace

MemoryPlan predict_memory(Clip& model, const StepOptions& options, const Context& context, Communicator& communicator,
                          const MemoryBudget& budget) {
  Rehearsal rehearsal(model, options, context, communicator, budget);
  MemoryPlan plan;
  plan.chunk = options.max_chunk < budget.pairs ? options.max_chunk : 0;
  plan.checkpoint_blocks = context.checkpoint_blocks;
  plan.resident = memory_report(model.logit_scale.value.device()).bytes;
  const double base = static_cast<double>(plan.resident) + rehearsal.waiting(budget);
  plan.step = rehearsal.peak(base, plan.chunk > 0 ? plan.chunk : budget.pairs, plan.checkpoint_blocks);
  plan.whole_batch = plan.chunk > 0 ? rehearsal.peak(base, budget.pairs, plan.checkpoint_blocks) : plan.step;
  return plan;
}

MemoryPlan plan_memory(Clip& model, const StepOptions& options, const Context& context, Communicator& communicator,
                       const MemoryBudget& budget) {
  const Device device = model.logit_scale.value.device();
  Rehearsal rehearsal(model, options, context, communicator, budget);
  MemoryPlan plan;
  plan.resident = memory_report(device).bytes;
  const double waiting = rehearsal.waiting(budget);
  const double base = static_cast<double>(plan.resident) + waiting, limit = static_cast<double>(budget.limit);
  const auto peak = [&](std::int64_t chunk) { return rehearsal.peak(base, chunk, plan.checkpoint_blocks); };
  const std::int64_t most = options.max_chunk > 0 ? std::min(options.max_chunk, budget.pairs) : budget.pairs, least = rehearsal.least();
  plan.checkpoint_blocks = context.checkpoint_blocks;
  plan.whole_batch = peak(budget.pairs);
  if (peak(most) > limit && !context.checkpoint_blocks && !model.config.vision.is_resnet()) {
    const bool one_fits = peak(least) <= limit;
    plan.checkpoint_blocks = true;
    plan.checkpoint_blocks = !one_fits || (most == budget.pairs && peak(most) <= limit);
  }
  reset_peak_memory(device);
  if (const double smallest = peak(least); smallest > limit) {
    throw ConfigError(
        fmt::format("--memory-limit {} is too small: the model and its optimizer take {}, batches that wait {}, and a step of "
                    "{} pairs, {} encoded at a time, {} in all; --memory-limit; raise it, or lower --batch-size",
                    amount(limit), amount(static_cast<double>(plan.resident)), amount(waiting), budget.pairs,
                    least == 1 ? "one" : std::to_string(least), amount(smallest)));
  }
  std::int64_t good = peak(most) <= limit ? most : least, too_many = most + 1;
  while (too_many - good > 1) {
    const std::int64_t middle = good + (too_many - good) / 2;
    (peak(middle) <= limit ? good : too_many) = middle;
  }
  const std::int64_t largest = Chunks(budget.pairs, good).largest;
  plan.chunk = largest >= budget.pairs ? 0 : largest;
  plan.step = peak(largest);
  return plan;
}

std::string to_string(const MemoryPlan& plan, const MemoryBudget& budget) {
  return fmt::format("memory: {} for the model and its optimizer, about {} for a step of {} pairs at once; limit {}: {}{}, about {}",
                     amount(static_cast<double>(plan.resident)), amount(plan.whole_batch), budget.pairs,
                     amount(static_cast<double>(budget.limit)),
                     plan.chunk == 0 ? "the whole batch at once" : fmt::format("chunks of {} pairs, features cached", plan.chunk),
                     plan.checkpoint_blocks ? ", blocks recomputed in backward" : "", amount(plan.step));
}

std::string prediction_text(const MemoryPlan& plan, const MemoryBudget& budget, Device device) {
  std::string text = fmt::format("memory: a step of {} pairs{} is predicted to take {} of {}, {} of them for the model and its optimizer",
                                 budget.pairs, plan.chunk > 0 ? fmt::format(" in chunks of {}", plan.chunk) : "", amount(plan.step),
                                 to_string(device), amount(static_cast<double>(plan.resident)));
  const double room = static_cast<double>(budget.limit);
  text += fmt::format("; there is room for {}", amount(room));
  if (plan.step <= room) return text;
  return text +
         fmt::format("; it will not fit: lower --batch-size or --max-chunk, use --grad-checkpointing, or give --memory-limit {:.0f}M",
                     std::floor(0.95 * room / 1e6));
}

std::string comparison_text(const MemoryPlan& plan, Device device) {
  const auto seen = static_cast<double>(memory_report(device).peak_bytes);
  const CardMemory card = card_memory(device);
  return fmt::format("memory: the first step took {} of {}, {} were predicted ({:+.1f} %); {} of the card's {} are in use", amount(seen),
                     to_string(device), amount(plan.step), 100.0 * (plan.step / seen - 1.0),
                     amount(static_cast<double>(card.total - card.free)), amount(static_cast<double>(card.total)));
}

std::string memory_seen(Device device) {
  rusage usage{};
  getrusage(RUSAGE_SELF, &usage);
  return fmt::format("memory: the peak was {} of tensors{} and {} of the process",
                     amount(static_cast<double>(memory_report(device).peak_bytes)), device.is_cuda() ? " on the card" : "",
                     amount(1024.0 * static_cast<double>(usage.ru_maxrss)));
}

}  // namespace twinlens
