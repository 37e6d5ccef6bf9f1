#include "clip/src/run_health.h"

#include <cmath>
#include <fmt/format.h>

#include "twinlens/core/ops.h"

namespace twinlens {
namespace {

constexpr std::int64_t kFirstUpdates = 20;  // without a running size worth the name
constexpr double kCollapsed = 0.95;         // mean cosine of different rows
constexpr double kAtLimit = 99.99;          // of the logit scale's 100

bool is_image(const std::string& name) { return name.rfind("visual.", 0) == 0; }
bool is_text(const std::string& name) { return !is_image(name) && name != "logit_scale" && name != "logit_bias"; }

}  // namespace

RunHealth::Verdict RunHealth::judge(double loss, double norm, const FlatParameters& parameters, std::int64_t updates, double beta2,
                                    bool look_for_spikes) {
  if (!std::isfinite(loss) || !std::isfinite(norm)) return Verdict::not_finite;
  if (o_.spike_factor <= 0.0 || o_.grad_clip_norm > 0.0 || updates < kFirstUpdates || !look_for_spikes) return Verdict::good;
  const auto squares = static_cast<double>(sum(parameters.moment2).item());
  running_norm_ = std::sqrt(squares / (1.0 - std::pow(beta2, static_cast<double>(updates))));
  return norm > o_.spike_factor * running_norm_ ? Verdict::spike : Verdict::good;
}

void RunHealth::count(Verdict verdict, bool left_out) {
  in_a_row_ = left_out ? in_a_row_ + 1 : 0;
  left_out_ += left_out ? 1 : 0;
  spikes_ += verdict == Verdict::spike ? 1 : 0;
}

void RunHealth::look(const GradientNorm& norm, const FeatureFigures& figures, double loss_scale) {
  figures_ = figures;
  image_norm_ = norm(is_image) / loss_scale;
  text_norm_ = norm(is_text) / loss_scale;
}

std::vector<std::string> RunHealth::hints(std::int64_t step, double loss, double ln_n, std::int64_t warmup, double learning_rate) {
  std::vector<std::string> out;
  if (o_.siglip || ln_n <= 0.0 || std::abs(loss - ln_n) > 0.01 * ln_n) {
    stuck_since_ = -1;
    next_hint_ = 50;
    return out;
  }
  if (stuck_since_ < 0) stuck_since_ = step;
  const std::int64_t steps = step - stuck_since_;
  if (steps < next_hint_) return out;
  next_hint_ *= 10;
  out.push_back(fmt::format("hint: for {} steps the loss has been within 1 % of ln N = {:.3f}, that of guessing", steps, ln_n));
  if (step < warmup) out.push_back(fmt::format("hint: the warm-up goes on until step {}; a shorter --warmup may help", warmup));
  if (o_.lock_image || o_.lock_text) {
    out.push_back(
        fmt::format("hint: the {} tower is frozen (--lock-{})", o_.lock_image ? "image" : "text", o_.lock_image ? "image" : "text"));
  }
  if (figures_.images > kCollapsed || figures_.texts > kCollapsed) {
    out.push_back(
        fmt::format("hint: the {} tower gives nearly the same feature to everything (mean cosine {:.3f}): it has collapsed; lower --lr "
                    "(now {:.1e}), or lengthen --warmup",
                    figures_.images > kCollapsed ? "image" : "text", std::max(figures_.images, figures_.texts), learning_rate));
  } else if (step >= warmup) {
    out.push_back(fmt::format("hint: try another --lr (now {:.1e}); see that captions belong to their pictures", learning_rate));
  }
  return out;
}

std::string RunHealth::text() const {
  std::string out = fmt::format("  cosine of pairs {:.2f} images {:.2f} texts {:.2f}", figures_.own_pairs, figures_.images, figures_.texts);
  if (left_out_ > 0) out += fmt::format("  steps left out {}", left_out_);
  return out;
}

void RunHealth::fields(nlohmann::ordered_json& line, double logit_scale) const {
  line["grad_norm_image"] = image_norm_;
  line["grad_norm_text"] = text_norm_;
  line["logit_scale_at_limit"] = logit_scale >= kAtLimit;
  line["cosine_own_pairs"] = figures_.own_pairs;
  line["cosine_images"] = figures_.images;
  line["cosine_texts"] = figures_.texts;
  line["steps_left_out"] = left_out_;
  line["spikes"] = spikes_;
}

}  // namespace twinlens
