#include "tests/house/tree.h"

#include <algorithm>
#include <fstream>
#include <regex>
#include <set>

namespace twinlens::house {
namespace {

std::string extension_of(const std::string& path) {
  const std::size_t dot = path.rfind('.');
  return dot == std::string::npos ? "" : path.substr(dot);
}

}  // namespace

bool SourceFile::is_header() const {
  const std::string extension = extension_of(path);
  return extension == ".h" || extension == ".cuh";
}

std::vector<std::string> read_lines(const std::filesystem::path& file) {
  std::ifstream in(file);
  std::vector<std::string> lines;
  for (std::string line; std::getline(in, line);) lines.push_back(line);
  return lines;
}

std::vector<SourceFile> sources(const std::vector<std::string>& folders) {
  static const std::set<std::string> code{".h", ".cpp", ".cu", ".cuh"};
  std::vector<SourceFile> files;
  for (const std::string& folder : folders) {
    if (!std::filesystem::exists(kRoot / folder)) continue;
    for (const auto& entry : std::filesystem::recursive_directory_iterator(kRoot / folder)) {
      const std::string path = entry.path().lexically_relative(kRoot).generic_string();
      if (entry.is_regular_file() && code.count(extension_of(path)) != 0) files.push_back({path, read_lines(entry.path())});
    }
  }
  std::sort(files.begin(), files.end(), [](const SourceFile& a, const SourceFile& b) { return a.path < b.path; });
  return files;
}

std::vector<std::string> includes(const SourceFile& file) {
  static const std::regex include(R"(^\s*#\s*include\s*(<[^>]+>|"[^"]+"))");
  std::vector<std::string> out;
  for (const std::string& line : file.lines) {
    std::smatch match;
    if (std::regex_search(line, match, include)) out.push_back(match[1]);
  }
  return out;
}

}  // namespace twinlens::house
