#pragma once
// What a run writes while it goes: out.log, metrics.jsonl, and one progress line on a terminal.

#include <chrono>
#include <cstdio>
#include <filesystem>
#include <fstream>
#include <nlohmann/json.hpp>
#include <string>

namespace twinlens {

class RunLog {
 public:
  // Appends to the files in `folder`. Throws FileError when they cannot be written.
  explicit RunLog(const std::filesystem::path& folder);
  ~RunLog();
  RunLog(const RunLog&) = delete;
  RunLog& operator=(const RunLog&) = delete;

  // A line for people, with the time of day, on stderr and in out.log.
  void line(const std::string& text);
  // A line of metrics.jsonl.
  void metrics(const nlohmann::ordered_json& object);
  // Redraws the progress line when stderr is a terminal, at most five times a second.
  void progress(std::int64_t step, std::int64_t total, const std::string& text);
  // Cuts metrics.jsonl after the last line whose step is at most `step`: a resumed run goes on from there.
  static void rewind_metrics(const std::filesystem::path& folder, std::int64_t step);

 private:
  void clear_progress();
  std::ofstream log_, metrics_;
  bool terminal_, drawn_ = false;
  std::chrono::steady_clock::time_point start_, last_draw_;
  std::int64_t first_step_ = -1;
};

}  // namespace twinlens
