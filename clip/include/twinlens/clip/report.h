#pragma once
// report.html: one self-contained page about a run: curves from metrics.jsonl, what captions retrieve, wrong answers, results, settings.

#include <filesystem>
#include <string>
#include <utility>
#include <vector>

#include "twinlens/clip/image.h"

namespace twinlens {

struct ReportPicture {
  Image image;
  std::string caption;
  bool correct = false;
};
// One text query and the pictures nearest to it, best first.
struct ReportQuery {
  std::string text;
  std::vector<ReportPicture> pictures;
};
// A picture whose nearest caption is wrong.
struct ReportMistake {
  Image image;
  std::string wanted, got;
};
struct ReportTable {
  std::string title, note;
  std::vector<std::string> header;
  std::vector<std::vector<std::string>> rows;
};

struct Report {
  std::string title, summary;
  std::vector<ReportTable> tables;
  std::vector<ReportQuery> queries;
  std::vector<ReportMistake> mistakes;
  std::vector<std::pair<std::string, std::string>> settings;
  int refresh_seconds = 0;  // above 0: the page loads itself again, for a run under way
};

// Reads LOGS/NAME/metrics.jsonl beside the page for the curves and writes the page atomically. Throws FileError.
void write_report(const std::filesystem::path& page, const Report& report, const std::filesystem::path& metrics_jsonl);

}  // namespace twinlens
