#pragma once
// A training run under way: its parts and where it stands.

#include <atomic>
#include <deque>
#include <filesystem>
#include <functional>
#include <limits>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "clip/src/card_feeder.h"
#include "clip/src/checkpoint.h"
#include "clip/src/data_health.h"
#include "clip/src/grace_saver.h"
#include "clip/src/graphed_steps.h"
#include "clip/src/live_report.h"
#include "clip/src/memory_plan.h"
#include "clip/src/resume.h"
#include "clip/src/run_health.h"
#include "clip/src/run_lock.h"
#include "clip/src/run_log.h"
#include "clip/src/step_readback.h"
#include "clip/src/train_settings.h"

#include "twinlens/clip/embedding.h"
#include "twinlens/clip/loader.h"
#include "twinlens/clip/tokenizer_files.h"
#include "twinlens/clip/train_step.h"
#include "twinlens/clip/trainer.h"

namespace twinlens {

// The averaged weights in the place of the trained ones, while it lives; without an average nothing.
class AveragedWeights {
 public:
  AveragedWeights(Ema* average, FlatParameters& parameters) : average_(average), parameters_(parameters) { swap(); }
  ~AveragedWeights() { swap(); }
  AveragedWeights(const AveragedWeights&) = delete;
  AveragedWeights& operator=(const AveragedWeights&) = delete;

 private:
  void swap() {
    if (average_ != nullptr) average_->swap(parameters_);
  }
  Ema* average_;
  FlatParameters& parameters_;
};

class Training {
 public:
  Training(const TrainOptions& options, const std::atomic<bool>* stop);
  TrainResult run();

 private:
  void prepare_model();
  void check_batch_norm() const;
  void prepare_steps();
  void take_changes();
  void plan_step_memory();
  MemoryBudget memory_budget() const;
  void plan_chunks(const MemoryBudget& budget);
  void compare_memory();
  // A step as its guard sees it.
  struct SeenStep {
    std::int64_t number;  // from 1
    const std::vector<std::int64_t>& samples;
    double loss, norm;
    bool logged;
    std::int64_t updates;  // that the moments have seen
  };
  // A step on a card that the host has not looked at.
  struct QueuedStep {
    std::int64_t number;
    std::vector<std::int64_t> samples;
    bool logged;
  };

  void step();
  double gradient_norm(const std::function<bool(const std::string& name)>& wanted) const;
  void begin_step();
  void end_step(const LoadedBatch& batch);
  void check_card_options() const;
  void check_graph_options() const;
  void prepare_card();
  LoadedBatch next_batch();
  void queue_step();
  void queue_work(const StepInputs& inputs, FeatureFigures* figures);
  void queue_update(const Tensor& loss);
  void settle_steps(std::int64_t left = 0);
  void check_finite(const SeenStep& step) const;
  std::string keys_of(const std::vector<std::int64_t>& samples) const;
  bool guard(const SeenStep& step);
  bool statistics_are_finite() const;
  void roll_back(std::int64_t bad_steps);
  bool is_logged(std::int64_t step) const { return step % o_.log_every_n_steps == 0 || step == total_steps_; }
  void log_step(const LoadedBatch& batch, double loss, double norm, double batch_seconds);
  EmbedOptions embed_options() const;
  nlohmann::ordered_json evaluate();
  bool evaluate_now();
  bool stopping() const { return stop_ != nullptr && stop_->load(); }
  void stop_here(TrainResult& result);
  bool is_best(const nlohmann::ordered_json& metrics) const;
  std::string best_metric() const;  // that --save-best compares: its name, and the data that it is measured on
  void forget_best();
  void save();
  void save_in_grace();
  bool weights_are_finite() const;
  void finish_writing();
  void note_skipped();
  std::string last_good() const;
  void run_steps(TrainResult& result);
  void finish();

  TrainOptions o_;
  const std::atomic<bool>* stop_;
  std::filesystem::path folder_;
  std::unique_ptr<RunLock> lock_;
  Device device_;
  std::unique_ptr<RunLog> log_;
  std::shared_ptr<const Dataset> data_, validation_;
  std::shared_ptr<const Tokenizer> tokenizer_;
  TokenizerFiles tokenizer_files_;  // of its model's folder: they go where models and checkpoints are written
  std::unique_ptr<Clip> model_;
  std::unique_ptr<FlatParameters> parameters_;
  std::unique_ptr<AdamWInBackward> in_backward_;  // absent: gradients are in parameters_
  std::unique_ptr<Ema> ema_;
  std::unique_ptr<Loader> loader_;
  std::unique_ptr<CheckpointWriter> writer_;
  std::unique_ptr<LiveReport> live_report_;
  std::unique_ptr<Communicator> communicator_ = solo_communicator();
  AdamWOptions adamw_;
  Schedule schedule_;
  StepBlock block_;
  Tensor device_block_;  // block_ in the memory of the card; absent on the CPU
  Tensor card_scale_;    // --async-step with f16: the LossScale that the card keeps, as two f32
  Context context_;
  StepOptions step_options_;
  TrainState state_;
  std::int64_t steps_per_epoch_ = 0, total_steps_ = 0;
  std::int64_t saved_step_ = -1;
  std::vector<std::string> plan_;  // what --memory-limit led to, and what is predicted on a card; for the log
  std::optional<MemoryPlan> prediction_;
  bool memory_compared_ = false;
  std::vector<SkippedSample> skipped_before_, validation_skipped_;
  std::size_t skipped_logged_ = 0;
  double last_loss_ = std::numeric_limits<double>::quiet_NaN();  // of the last update
  double last_norm_ = 0.0, last_scale_ = 1.0;
  RunHealth health_{o_};
  DataHealth data_health_;
  std::unique_ptr<StepReadback> readback_;  // --async-step
  std::deque<QueuedStep> queued_;
  std::unique_ptr<GraphedSteps> graphs_;  // --cuda-graphs
  std::unique_ptr<CardFeeder> feeder_;    // --prefetch-batches; before it the loader
  std::unique_ptr<GraceSaver> grace_;     // last: its thread looks at the rest
};

}  // namespace twinlens
