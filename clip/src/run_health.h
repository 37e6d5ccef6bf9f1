#pragma once
// What tells a healthy run from a sick one: steps that are not finite or are spikes, where the loss stands beside ln N, gradient norms of
// the towers, whether features collapse, whether the logit scale is at its limit. Said in the log line, in metrics.jsonl, and as hints.

#include <functional>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "twinlens/clip/train_step.h"
#include "twinlens/clip/trainer.h"

namespace twinlens {

class RunHealth {
 public:
  enum class Verdict { good, not_finite, spike };

  explicit RunHealth(const TrainOptions& options) : o_(options) {}

  // Of a step before its update. The running size of the gradient is that of AdamW's second moments, bias-corrected: it is in every
  // checkpoint, so a resumed run judges alike. Spikes are looked for after 20 updates, without --grad-clip-norm (which takes care of them),
  // and where `look_for_spikes` (a pass over the moments).
  Verdict judge(double loss, double norm, const FlatParameters& parameters, std::int64_t updates, double beta2, bool look_for_spikes);
  // Counts a step that was left out, or the end of a series of them.
  void count(Verdict verdict, bool left_out);
  // Of a run that is resumed.
  void go_on(std::int64_t bad_in_a_row, std::int64_t left_out, std::int64_t spikes) {
    in_a_row_ = bad_in_a_row;
    left_out_ = left_out;
    spikes_ = spikes;
  }
  std::int64_t bad_in_a_row() const { return in_a_row_; }
  std::int64_t left_out() const { return left_out_; }
  std::int64_t spikes() const { return spikes_; }

  // At a step that is logged: gradient norms of the towers.
  using GradientNorm = std::function<double(const std::function<bool(const std::string& name)>& wanted)>;
  void look(const GradientNorm& norm, const FeatureFigures& figures, double loss_scale = 1.0);
  // Once for every logged step; the hints of a loss that stays at ln N, when they are due.
  std::vector<std::string> hints(std::int64_t step, double loss, double ln_n, std::int64_t warmup, double learning_rate);
  // The end of the log line, and the fields of metrics.jsonl.
  std::string text() const;
  void fields(nlohmann::ordered_json& line, double logit_scale) const;

 private:
  const TrainOptions& o_;
  FeatureFigures figures_;
  double image_norm_ = 0.0, text_norm_ = 0.0, running_norm_ = 0.0;
  std::int64_t in_a_row_ = 0, left_out_ = 0, spikes_ = 0;
  std::int64_t stuck_since_ = -1, next_hint_ = 50;
};

}  // namespace twinlens
