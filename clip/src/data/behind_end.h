#pragma once

#include <algorithm>
#include <cstdint>
#include <vector>

#include "twinlens/core/file.h"

namespace twinlens {

// What a tar is damaged by that ends before its file does: a hole of zeros reads as its end, and so does that of the first of several tars
// that were joined.
inline constexpr const char* kMoreBehindEnd = "there is more behind its end (a hole of zeros, or several tars joined by cat)";

// Whether anything but zeros lies in the file from `begin` on.
inline bool has_more(const InputFile& file, std::uint64_t begin) {
  std::vector<char> block(std::size_t{1} << 16);
  for (std::uint64_t at = begin; at < file.size(); at += block.size()) {
    const auto n = static_cast<std::size_t>(std::min<std::uint64_t>(block.size(), file.size() - at));
    file.read_at(at, block.data(), n);
    if (std::any_of(block.begin(), block.begin() + static_cast<std::ptrdiff_t>(n), [](char c) { return c != 0; })) return true;
  }
  return false;
}

}  // namespace twinlens
