// Floors: examples -> clip -> nn -> core -> kernels. An arrow means "may include"; nothing points back up.
#include <algorithm>
#include <catch2/catch.hpp>
#include <regex>

#include "tests/house/tree.h"

namespace twinlens::house {
namespace {

const std::vector<std::string> kFloors{"kernels", "core", "nn", "clip", "examples"};

int height(const std::string& floor) {
  const auto found = std::find(kFloors.begin(), kFloors.end(), floor);
  return found == kFloors.end() ? -1 : static_cast<int>(found - kFloors.begin());
}

// The floor that an include names, or "": "twinlens/core/tensor.h" -> core (public), "core/src/state.h" -> core (private).
std::string floor_of(std::string include, bool& is_public) {
  include = include.substr(1, include.size() - 2);
  is_public = include.rfind("twinlens/", 0) == 0;
  if (is_public) include = include.substr(9);
  const std::string first = include.substr(0, include.find('/'));
  return height(first) >= 0 ? first : "";
}

// Files that are compiled once per instruction set.
bool is_isa_file(const SourceFile& file) { return file.is_under("kernels/cpu") && !file.is_under("kernels/cpu/once"); }

bool may_use_intrinsics(const SourceFile& file) {
  return file.is_under("kernels/cpu/vec") || file.path.find("gemm") != std::string::npos || file.path.find("matmul") != std::string::npos;
}

}  // namespace

TEST_CASE("no include points up, and other floors are entered by their public headers") {
  for (const SourceFile& file : sources(kFloors)) {
    for (const std::string& include : includes(file)) {
      bool is_public = false;
      const std::string floor = floor_of(include, is_public);
      INFO(file.path << " includes " << include);
      CHECK((include.find("\"tests/") == std::string::npos && include.find("\"bench/") == std::string::npos));
      if (floor.empty()) continue;
      CHECK(height(floor) <= height(file.floor()));
      CHECK((is_public || floor == file.floor()));
    }
  }
}

TEST_CASE("public headers include only public headers") {
  for (const SourceFile& file : sources(kFloors)) {
    if (file.path.find("/include/twinlens/") == std::string::npos) continue;
    for (const std::string& include : includes(file)) {
      INFO(file.path << " includes " << include);
      CHECK((include.front() == '<' || include.rfind("\"twinlens/", 0) == 0));
    }
  }
}

TEST_CASE("files compiled once per instruction set include kernels headers and <c...> only") {
  static const std::regex c_header("<c[a-z]+>");
  for (const SourceFile& file : sources({"kernels/cpu"})) {
    if (!is_isa_file(file)) continue;
    for (const std::string& include : includes(file)) {
      INFO(file.path << " includes " << include);
      const bool kernels = include.rfind("\"kernels/cpu/", 0) == 0 || include.rfind("\"twinlens/kernels/", 0) == 0;
      const bool intrinsics = include == "<immintrin.h>" || include == "<arm_neon.h>";
      CHECK((kernels || std::regex_match(include, c_header) || (intrinsics && may_use_intrinsics(file))));
    }
  }
}

TEST_CASE("CUDA headers are included under kernels/cuda only") {
  static const std::regex cuda_header("<(cuda|cublas|cudnn|nccl)[a-zA-Z_0-9]*\\.h>");
  for (const SourceFile& file : sources(kFloors)) {
    if (file.is_under("kernels/cuda")) continue;
    for (const std::string& include : includes(file)) {
      INFO(file.path << " includes " << include);
      CHECK_FALSE(std::regex_match(include, cuda_header));
    }
  }
}

}  // namespace twinlens::house
