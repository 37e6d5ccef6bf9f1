#pragma once
// The source tree as the house tests see it.

#include <filesystem>
#include <string>
#include <vector>

namespace twinlens::house {

inline const std::filesystem::path kRoot = TWINLENS_SOURCE_DIR;

struct SourceFile {
  std::string path;  // from the root, with '/'
  std::vector<std::string> lines;

  std::string floor() const { return path.substr(0, path.find('/')); }
  bool is_header() const;
  bool is_under(const std::string& folder) const { return path.rfind(folder + "/", 0) == 0; }
};

std::vector<std::string> read_lines(const std::filesystem::path& file);
// C++ and CUDA files under these folders of the root, in order of path. Missing folders have none.
std::vector<SourceFile> sources(const std::vector<std::string>& folders);
// What stands between <> or "" on #include lines, with the delimiter: "<vector>" or "\"a/b.h\"".
std::vector<std::string> includes(const SourceFile& file);

}  // namespace twinlens::house
