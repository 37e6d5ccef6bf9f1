#include "clip/src/live_report.h"

#include <algorithm>
#include <fmt/format.h>

#include "clip/src/run_report.h"

namespace twinlens {

void LiveReport::update(const TrainOptions& options, const TrainState& state, std::int64_t total_steps, const DataHealth& data,
                        const std::vector<SkippedSample>& skipped) {
  const Clock::time_point start = Clock::now();
  if (seconds_ <= 0.0 || start < next_) return;
  Report report;
  report.title = "twinlens: " + options.name;
  report.summary = fmt::format("Under way: step {} of {}, {} pairs seen, {} epochs done. This page is written anew every {:.0f} seconds.",
                               state.step, total_steps, state.samples, state.epoch, seconds_);
  report.refresh_seconds = std::max(1, static_cast<int>(seconds_));
  report.tables.push_back(data.table(skipped));
  report.settings = describe(options);
  write_report(folder_ / "report.html", report, folder_ / "metrics.jsonl");
  const Clock::time_point end = Clock::now();
  const double took = std::chrono::duration<double>(end - start).count();
  next_ = end + std::chrono::duration_cast<Clock::duration>(std::chrono::duration<double>(std::max(seconds_, 200.0 * took)));
}

}  // namespace twinlens
