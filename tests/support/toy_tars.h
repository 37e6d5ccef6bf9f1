#pragma once
// Tars of toy pairs, in every dialect and compression that libarchive writes.

#include <chrono>
#include <filesystem>
#include <string>
#include <vector>

#include "tests/support/archive_files.h"
#include "tests/support/toy_data.h"

#include "twinlens/core/file.h"

namespace twinlens::test {

inline Members members_of(const std::vector<ToyPair>& pairs, std::size_t begin, std::size_t end) {
  Members out;
  for (std::size_t i = begin; i < end; ++i) {
    out.emplace_back(pairs[i].name + ".json", "{\"group\": \"g" + std::to_string(i % 2) + "\", \"n\": " + std::to_string(i) + "}");
    out.emplace_back(pairs[i].name + ".png", pairs[i].png);
    out.emplace_back(pairs[i].name + ".txt", pairs[i].caption + "\n");
  }
  return out;
}

// A file's bytes, packed.
inline void pack(const std::string& from, const std::string& to, int (*add_filter)(archive*)) {
  write_archive(to, {{"data", read_file(from)}}, [&](archive* out) {
    archive_write_set_format_raw(out);
    REQUIRE(add_filter(out) == ARCHIVE_OK);
  });
}
inline void gzip(const std::string& from, const std::string& to) { pack(from, to, archive_write_add_filter_gzip); }
inline void zstd(const std::string& from, const std::string& to) { pack(from, to, archive_write_add_filter_zstd); }

// As if it had been written an hour ago: the index of a shard that is seconds old is not kept.
inline void make_old(const std::string& path) {
  std::filesystem::last_write_time(path, std::filesystem::last_write_time(path) - std::chrono::hours(1));
}

}  // namespace twinlens::test
