// What the documents promise exists.
#include <catch2/catch.hpp>
#include <regex>

#include "tests/house/tree.h"

namespace twinlens::house {
namespace {

std::vector<std::filesystem::path> pages() {
  std::vector<std::filesystem::path> out;
  for (const char* place : {".", "docs", "docs/decisions"}) {
    if (!std::filesystem::exists(kRoot / place)) continue;
    for (const auto& entry : std::filesystem::directory_iterator(kRoot / place)) {
      if (entry.path().extension() == ".md") out.push_back(entry.path());
    }
  }
  return out;
}

// Code blocks of a page: the language after ``` and the lines.
struct Block {
  std::string language;
  std::vector<std::string> lines;
};
std::vector<Block> blocks(const std::filesystem::path& page) {
  std::vector<Block> out;
  bool inside = false;
  for (const std::string& line : read_lines(page)) {
    if (line.rfind("```", 0) == 0) {
      inside = !inside;
      if (inside) out.push_back({line.substr(3), {}});
    } else if (inside) {
      out.back().lines.push_back(line);
    }
  }
  return out;
}

}  // namespace

TEST_CASE("scripts that pages tell the reader to run exist and can be run") {
  static const std::regex script(R"(^\s*(?:\$ )?([A-Za-z_.]+/[A-Za-z_./-]+|[A-Za-z_-]+\.(?:sh|py))(?:\s|$))");
  for (const auto& page : pages()) {
    for (const Block& block : blocks(page)) {
      if (block.language != "sh" && block.language != "bash" && block.language != "console") continue;
      for (const std::string& line : block.lines) {
        std::smatch match;
        if (!std::regex_search(line, match, script)) continue;
        const std::string path = match[1];
        if (path.rfind("build/", 0) == 0 || path.rfind("bin/", 0) == 0) continue;  // made by the build
        INFO(page.filename() << ": " << line);
        REQUIRE(std::filesystem::exists(kRoot / path));
        CHECK((std::filesystem::status(kRoot / path).permissions() & std::filesystem::perms::owner_exec) != std::filesystem::perms::none);
      }
    }
  }
}

TEST_CASE("links between pages lead somewhere") {
  static const std::regex link(R"(\]\(([^)#\s]+)(#[^)]*)?\))");
  for (const auto& page : pages()) {
    for (const std::string& line : read_lines(page)) {
      for (auto it = std::sregex_iterator(line.begin(), line.end(), link); it != std::sregex_iterator(); ++it) {
        const std::string target = (*it)[1];
        if (target.find("://") != std::string::npos) continue;
        INFO(page.filename() << " links to " << target);
        CHECK(std::filesystem::exists(page.parent_path() / target));
      }
    }
  }
}

// docs/adding-an-op.md: every code block that names a file in its first line is that file, or lines of it in order.
TEST_CASE("code quoted in pages is the code that is compiled") {
  static const std::regex title(R"(^(?://|#) ([a-z_]+/[A-Za-z0-9_./-]+)$)");
  int quoted = 0;
  for (const auto& page : pages()) {
    for (const Block& block : blocks(page)) {
      std::smatch match;
      if (block.lines.empty() || !std::regex_match(block.lines[0], match, title)) continue;
      const std::string path = match[1];
      const std::vector<std::string> file = read_lines(kRoot / path);
      INFO(page.filename() << " quotes " << path);
      REQUIRE(!file.empty());
      std::size_t at = 0;
      for (std::size_t i = 1; i < block.lines.size(); ++i) {
        INFO("line: " << block.lines[i]);
        while (at < file.size() && file[at] != block.lines[i]) ++at;
        CHECK(at < file.size());
        ++at;
      }
      ++quoted;
    }
  }
  CHECK(quoted > 0);
}

}  // namespace twinlens::house
