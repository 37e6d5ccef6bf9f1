#pragma once
// report.html while a run goes on: curves, state of the data and settings, written anew at intervals.

#include <chrono>
#include <filesystem>

#include "clip/src/checkpoint.h"
#include "clip/src/data_health.h"

#include "twinlens/clip/trainer.h"

namespace twinlens {

class LiveReport {
 public:
  // `seconds` between two pages; 0: none before the end.
  LiveReport(std::filesystem::path folder, double seconds) : folder_(std::move(folder)), seconds_(seconds) {}
  // Writes the page when it is time. Waits longer where writing takes long, so that it costs less than half a percent.
  void update(const TrainOptions& options, const TrainState& state, std::int64_t total_steps, const DataHealth& data,
              const std::vector<SkippedSample>& skipped);

 private:
  using Clock = std::chrono::steady_clock;
  std::filesystem::path folder_;
  double seconds_;
  Clock::time_point next_{};  // the first page comes with the first line of the log
};

}  // namespace twinlens
