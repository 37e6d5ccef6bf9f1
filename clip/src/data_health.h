#pragma once
// What the log says about the data: how much of a step is spent waiting for it and why, captions cut short, samples skipped.

#include <cstdint>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "twinlens/clip/loader.h"
#include "twinlens/clip/report.h"

namespace twinlens {

class DataHealth {
 public:
  void add(const LoadedBatch& batch, double batch_seconds);
  // Since the last restart(), that is of one log line:
  double pairs_per_second() const { return line_.busy > 0.0 ? static_cast<double>(line_.seen) / line_.busy : 0.0; }
  double wait_share() const { return line_.busy > 0.0 ? line_.wait / line_.busy : 0.0; }
  // Adds truncated_share, data_wait_share, read_share (of a worker's time), skipped and skipped_share to a line of metrics.jsonl.
  void fields(nlohmann::ordered_json& line, std::int64_t skipped, std::int64_t samples) const;
  // What limits and what to do about it, when more than a fifth of the time is spent waiting; otherwise empty.
  std::string warning(int workers, int cores) const;
  void restart() { line_ = {}; }
  // Of the whole run, for report.html; skipped samples are counted by their reasons.
  ReportTable table(const std::vector<SkippedSample>& skipped) const;

 private:
  struct Sums {
    double wait = 0.0, busy = 0.0, read = 0.0, decode = 0.0;
    std::int64_t truncated = 0, seen = 0;
  };
  static double share(double part, double whole) { return whole > 0.0 ? part / whole : 0.0; }
  Sums line_, all_;
};

}  // namespace twinlens
