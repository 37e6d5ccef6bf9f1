// Object files that are compiled for an instruction set may only hold code that is marked with it: a function of another name would be
// merged with that of another set, and an old processor might be given instructions it does not have.
#include <array>
#include <catch2/catch.hpp>
#include <cstdio>
#include <sstream>

#include "tests/house/tree.h"

namespace twinlens::house {
namespace {

std::string output_of(const std::string& command) {
  std::string text;
  FILE* pipe = popen(command.c_str(), "r");
  REQUIRE(pipe != nullptr);
  std::array<char, 4096> buffer;
  while (const std::size_t n = std::fread(buffer.data(), 1, buffer.size(), pipe)) text.append(buffer.data(), n);
  REQUIRE(pclose(pipe) == 0);
  return text;
}

// The tag as it stands in a mangled name: "4Avx2".
std::string mangled(const std::string& tag) { return std::to_string(tag.size()) + tag; }

struct Symbol {
  char type = 0;
  std::string name;
};

std::vector<Symbol> symbols_of(const std::string& object) {
  std::istringstream in(output_of(std::string(TWINLENS_NM) + " --format=posix '" + object + "'"));
  std::vector<Symbol> symbols;
  for (std::string line; std::getline(in, line);) {
    std::istringstream words(line);
    Symbol symbol;
    if (words >> symbol.name >> symbol.type) symbols.push_back(symbol);
  }
  return symbols;
}

bool is_shared_definition(char type) { return std::string("TDBRCWVuGS").find(type) != std::string::npos; }

}  // namespace

TEST_CASE("objects of an instruction set export only what bears its tag and start nothing") {
  int objects = 0;
  for (const std::string& line : read_lines(TWINLENS_ISA_OBJECTS)) {
    if (line.empty()) continue;
    const std::string tag = line.substr(0, line.find(' ')), object = line.substr(line.find(' ') + 1);
    ++objects;
    for (const Symbol& symbol : symbols_of(object)) {
      INFO(object << ": " << symbol.type << " " << symbol.name);
      // a pointer to the C++ runtime's personality routine: data, the same in every set
      if (symbol.name.rfind("DW.ref.", 0) == 0) continue;
      if (is_shared_definition(symbol.type)) CHECK(symbol.name.find(mangled(tag)) != std::string::npos);
      CHECK(symbol.name.rfind("_GLOBAL__", 0) != 0);
      CHECK(symbol.name.find("__static_initialization") == std::string::npos);
      CHECK(symbol.name != "__cxa_atexit");
      CHECK(symbol.name != "__cxa_guard_acquire");
    }
  }
  CHECK(objects > 0);
}

}  // namespace twinlens::house
