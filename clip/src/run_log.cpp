#include "clip/src/run_log.h"

#include <fmt/chrono.h>
#include <fmt/format.h>
#include <unistd.h>

#include "clip/src/json_text.h"

#include "twinlens/core/file.h"
#include "twinlens/kernels/error.h"

namespace twinlens {
namespace {

std::ofstream open_for_append(const std::filesystem::path& path) {
  std::ofstream file(path, std::ios::app);
  if (!file) throw FileError("cannot be written; " + path.string() + "; check permissions and free space, or choose another --logs");
  return file;
}

std::string bar(double share) {
  constexpr int kCells = 24;
  std::string out;
  for (int i = 0; i < kCells; ++i) out += i < static_cast<int>(share * kCells) ? "█" : "░";
  return out;
}

std::string clock(double seconds) {
  const auto s = static_cast<long>(seconds);
  return s >= 3600 ? fmt::format("{}:{:02}:{:02}", s / 3600, s / 60 % 60, s % 60) : fmt::format("{}:{:02}", s / 60, s % 60);
}

bool is_evaluation(const nlohmann::ordered_json& line) { return !line.contains("loss"); }

}  // namespace

RunLog::RunLog(const std::filesystem::path& folder, bool tensorboard)
    : metrics_path_(folder / "metrics.jsonl"),
      log_(open_for_append(folder / "out.log")),
      metrics_(open_for_append(metrics_path_)),
      events_(tensorboard ? std::make_unique<EventFile>(folder / "tensorboard") : nullptr),
      terminal_(isatty(STDERR_FILENO) != 0) {}

RunLog::~RunLog() { clear_progress(); }

void RunLog::clear_progress() {
  if (drawn_) std::fprintf(stderr, "\r\033[K");
  drawn_ = false;
}

void RunLog::line(const std::string& text) {
  clear_progress();
  const std::string stamped = fmt::format("{:%H:%M:%S} {}\n", fmt::localtime(std::time(nullptr)), text);
  std::fputs(stamped.c_str(), stderr);
  log_ << stamped << std::flush;
}

void RunLog::metrics(const nlohmann::ordered_json& object) {
  metrics_ << json_text(object) << "\n" << std::flush;
  if (!metrics_)
    throw FileError("metrics: a line could not be written; " + metrics_path_.string() +
                    "; free some disk space and resume with --resume latest");
  if (events_ == nullptr) return;
  Scalars scalars;
  const std::string group = is_evaluation(object) ? "val/" : "train/";
  for (const auto& [name, value] : object.items()) {
    if (name != "step" && value.is_number()) scalars.emplace_back(group + name, value.get<double>());
  }
  events_->add(object.value("step", std::int64_t{0}), scalars);
}

void RunLog::progress(std::int64_t step, std::int64_t total, const std::string& text) {
  const auto now = std::chrono::steady_clock::now();
  if (first_step_ < 0) {
    first_step_ = step;
    start_ = now;
  }
  const double passed = std::chrono::duration<double>(now - start_).count();
  const auto done = static_cast<double>(step - first_step_);
  left_ = done > 0 ? clock(passed / done * static_cast<double>(total - step)) + " left" : "";
  if (!terminal_ || (step < total && now - last_draw_ < std::chrono::milliseconds(200))) return;
  last_draw_ = now;
  std::fprintf(stderr, "\r\033[K%s %lld/%lld  %s  %s", bar(static_cast<double>(step) / static_cast<double>(total)).c_str(),
               static_cast<long long>(step), static_cast<long long>(total), text.c_str(), left_.c_str());
  std::fflush(stderr);
  drawn_ = true;
}

void RunLog::rewind_metrics(const std::filesystem::path& folder, std::int64_t step, bool evaluation_due) {
  EventFile::rewind(folder / "tensorboard", step, evaluation_due ? "val/" : "");
  const std::filesystem::path path = folder / "metrics.jsonl";
  std::ifstream file(path);
  if (!file) return;
  std::string kept, text;
  while (std::getline(file, text)) {
    const auto json = nlohmann::ordered_json::parse(text, nullptr, false);
    if (!json.is_object()) continue;  // a line that a killed run left half written
    if (json.contains("step") && !json["step"].is_number_integer()) continue;
    const auto at = json.value("step", std::int64_t{0});
    if (at < step || (at == step && !(evaluation_due && is_evaluation(json)))) kept += text + "\n";
  }
  atomic_write(path.string(), kept);
}

}  // namespace twinlens
