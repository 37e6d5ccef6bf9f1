#pragma once
// What a run writes while it goes: out.log, metrics.jsonl, TensorBoard's event file when asked for, and one progress line on a terminal.

#include <chrono>
#include <cstdio>
#include <filesystem>
#include <fstream>
#include <memory>
#include <nlohmann/json.hpp>
#include <string>

#include "clip/src/event_file.h"

namespace twinlens {

class RunLog {
 public:
  // Appends to the files in `folder`. Throws FileError when they cannot be written.
  explicit RunLog(const std::filesystem::path& folder, bool tensorboard = false);
  ~RunLog();
  RunLog(const RunLog&) = delete;
  RunLog& operator=(const RunLog&) = delete;

  // A line for people, with the time of day, on stderr and in out.log.
  void line(const std::string& text);
  // A line of metrics.jsonl, and its numbers for TensorBoard: as train/NAME, those of an evaluation as val/NAME.
  void metrics(const nlohmann::ordered_json& object);
  // Redraws the progress line when stderr is a terminal, at most five times a second.
  void progress(std::int64_t step, std::int64_t total, const std::string& text);
  // Of the time, as "1:02:03 left" at the speed so far; empty before the second progress().
  const std::string& left() const { return left_; }
  // Cuts metrics.jsonl and TensorBoard's files after the last line whose step is at most `step`: a resumed run goes on from there. With
  // `evaluation_due` the evaluation at this step goes too, since it is made again.
  static void rewind_metrics(const std::filesystem::path& folder, std::int64_t step, bool evaluation_due = false);

 private:
  void clear_progress();
  std::filesystem::path metrics_path_;
  std::ofstream log_, metrics_;
  std::unique_ptr<EventFile> events_;
  bool terminal_, drawn_ = false;
  std::chrono::steady_clock::time_point start_, last_draw_;
  std::int64_t first_step_ = -1;
  std::string left_;
};

}  // namespace twinlens
