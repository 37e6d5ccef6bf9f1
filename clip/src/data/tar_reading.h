#pragma once
// What the readers of tars have in common.

#include <algorithm>
#include <archive.h>
#include <archive_entry.h>
#include <cstdint>
#include <string>
#include <vector>

#include "twinlens/core/file.h"

namespace twinlens {

// Whether libarchive has read what it was asked for. ARCHIVE_RETRY, which it answers to a header with a wrong checksum, ranks above
// ARCHIVE_WARN.
inline bool was_read(int status) { return status == ARCHIVE_OK || status == ARCHIVE_WARN; }

// The bytes of a member's name, empty where there is none. (A pax name that the locale cannot express is there as UTF-8 only.)
inline std::string name_of(archive_entry* entry) {
  for (const char* name : {archive_entry_pathname_utf8(entry), archive_entry_pathname(entry)}) {
    if (name != nullptr) return name;
  }
  return {};
}

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
