// Rules of the text itself.
#include <algorithm>
#include <catch2/catch.hpp>
#include <map>
#include <regex>
#include <set>

#include "tests/house/tree.h"

namespace twinlens::house {
namespace {

const std::vector<std::string> kCode{"kernels", "core", "nn", "clip", "examples", "tests", "bench"};

std::string text_of(const SourceFile& file) {
  std::string text;
  for (const std::string& line : file.lines) text += line + "\n";
  return text;
}

// Lines of the list in kernels/ops.cmake: name -> whether it has `+cuda`.
std::map<std::string, bool> listed_ops() {
  static const std::regex entry(R"(^\s+([a-z0-9_]+)((\+[a-z0-9]+)*)\)?\s*$)");
  std::map<std::string, bool> ops;
  for (const std::string& line : read_lines(kRoot / "kernels/ops.cmake")) {
    std::smatch match;
    if (std::regex_match(line, match, entry)) ops[match[1]] = match[2].str().find("+cuda") != std::string::npos;
  }
  return ops;
}

}  // namespace

TEST_CASE("code lies in the folders of the floors, tests and bench") {
  std::set<std::string> folders(kCode.begin(), kCode.end());
  for (const auto& entry : std::filesystem::directory_iterator(kRoot)) {
    const std::string name = entry.path().filename().string();
    if (!entry.is_directory() || name[0] == '.' || name.rfind("build", 0) == 0 || folders.count(name) != 0) continue;
    INFO("folder " << name);
    CHECK(sources({name}).empty());
  }
}

TEST_CASE("parallel.cpp is the only file with OpenMP") {
  static const std::regex openmp(R"(#\s*pragma\s+omp|_Pragma\("omp|#\s*include\s*<omp\.h>)");
  for (const SourceFile& file : sources({"kernels", "core", "nn", "clip", "examples", "bench"})) {
    if (file.path == "kernels/cpu/once/parallel.cpp") continue;
    INFO(file.path);
    CHECK_FALSE(std::regex_search(text_of(file), openmp));
  }
}

TEST_CASE("headers define no function-like macros") {
  static const std::regex macro(R"(^\s*#\s*define\s+\w+\()");
  for (const SourceFile& file : sources(kCode)) {
    if (!file.is_header()) continue;
    for (const std::string& line : file.lines) {
      INFO(file.path << ": " << line);
      CHECK_FALSE(std::regex_search(line, macro));
    }
  }
}

TEST_CASE("the op list and the kCuda flags say the same") {
  static const std::regex op_struct(
      R"(struct (\w+) \{\s*static constexpr const char\* kName[^;]*;\s*static constexpr bool kCuda = (\w+);)");
  for (const auto& [name, has_cuda] : listed_ops()) {
    const std::string path = "kernels/include/twinlens/kernels/" + name + ".h";
    std::string text;
    for (const std::string& line : read_lines(kRoot / path)) text += line + "\n";
    INFO(path << " against kernels/ops.cmake");
    auto found = std::sregex_iterator(text.begin(), text.end(), op_struct);
    CHECK(found != std::sregex_iterator());
    for (; found != std::sregex_iterator(); ++found) {
      const std::string args = (*found)[1];
      INFO("struct " << args);
      CHECK(((*found)[2] == "true") == has_cuda);
      CHECK((text.find("void launch(Cuda, Stream&, const " + args + "&);") != std::string::npos) == has_cuda);
    }
  }
}

// In a header that is not installed a user's #include, or one of another header's, ends.
TEST_CASE("every public header is installed") {
  const std::map<std::string, bool> ops = listed_ops();
  for (const char* floor : {"kernels", "core", "nn", "clip"}) {
    const std::vector<std::string> lines = read_lines(kRoot / floor / "CMakeLists.txt");
    for (const SourceFile& file : sources({floor})) {
      if (file.path.find("/include/twinlens/") == std::string::npos) continue;
      const std::filesystem::path path(file.path);
      if (file.floor() == "kernels" && ops.count(path.stem().string()) != 0) continue;  // from the list
      const std::string listed = path.lexically_relative(floor).string();
      INFO(file.path);
      CHECK(std::any_of(lines.begin(), lines.end(), [&](const std::string& line) { return line.find(listed) != std::string::npos; }));
    }
  }
}

TEST_CASE("every CUDA kernel file belongs to a listed op") {
  const std::map<std::string, bool> ops = listed_ops();
  for (const SourceFile& file : sources({"kernels/cuda"})) {
    if (file.path.size() < 3 || file.path.substr(file.path.size() - 3) != ".cu") continue;
    const std::string name = std::filesystem::path(file.path).stem().string();
    INFO(file.path);
    REQUIRE(ops.count(name) == 1);
    CHECK(ops.at(name));
  }
}

TEST_CASE("headers begin with pragma once, files stay short, nothing is left to do") {
  const std::regex mark(std::string("\\b(TO") + "DO|FIX" + "ME|XX" + "X)\\b");
  for (const SourceFile& file : sources(kCode)) {
    INFO(file.path);
    CHECK(file.lines.size() <= 450);  // usually under 200, rarely above 400
    if (file.is_header()) CHECK((!file.lines.empty() && file.lines[0] == "#pragma once"));
    for (const std::string& line : file.lines) {
      INFO(line);
      CHECK_FALSE(std::regex_search(line, mark));
    }
  }
}

}  // namespace twinlens::house
