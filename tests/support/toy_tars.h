#pragma once
// Tars of toy pairs, in every dialect and compression that libarchive writes.

#include <archive.h>
#include <archive_entry.h>
#include <catch2/catch.hpp>
#include <chrono>
#include <filesystem>
#include <string>
#include <utility>
#include <vector>
#include <zlib.h>

#include "tests/support/toy_data.h"

#include "twinlens/core/file.h"

namespace twinlens::test {

using Members = std::vector<std::pair<std::string, std::string>>;  // name, bytes

inline void write_tar(const std::string& path, const Members& members, int format = ARCHIVE_FORMAT_TAR_USTAR) {
  archive* out = archive_write_new();
  archive_write_set_format(out, format);
  REQUIRE(archive_write_open_filename(out, path.c_str()) == ARCHIVE_OK);
  for (const auto& [name, bytes] : members) {
    archive_entry* entry = archive_entry_new();
    archive_entry_set_pathname(entry, name.c_str());
    archive_entry_set_size(entry, static_cast<la_int64_t>(bytes.size()));
    archive_entry_set_filetype(entry, name.back() == '/' ? AE_IFDIR : AE_IFREG);
    archive_entry_set_perm(entry, 0444);
    REQUIRE(archive_write_header(out, entry) >= ARCHIVE_WARN);  // it warns of names that the locale cannot express
    REQUIRE(archive_write_data(out, bytes.data(), bytes.size()) == static_cast<la_ssize_t>(bytes.size()));
    archive_entry_free(entry);
  }
  REQUIRE(archive_write_close(out) == ARCHIVE_OK);
  archive_write_free(out);
}

inline void gzip(const std::string& from, const std::string& to) {
  const std::string bytes = read_file(from);
  gzFile out = gzopen(to.c_str(), "wb");
  REQUIRE(gzwrite(out, bytes.data(), static_cast<unsigned>(bytes.size())) == static_cast<int>(bytes.size()));
  gzclose(out);
}

inline Members members_of(const std::vector<ToyPair>& pairs, std::size_t begin, std::size_t end) {
  Members out;
  for (std::size_t i = begin; i < end; ++i) {
    out.emplace_back(pairs[i].name + ".json", "{\"group\": \"g" + std::to_string(i % 2) + "\", \"n\": " + std::to_string(i) + "}");
    out.emplace_back(pairs[i].name + ".png", pairs[i].png);
    out.emplace_back(pairs[i].name + ".txt", pairs[i].caption + "\n");
  }
  return out;
}

// zstd of a file's bytes.
inline void zstd(const std::string& from, const std::string& to) {
  const std::string bytes = read_file(from);
  archive* out = archive_write_new();
  archive_write_set_format_raw(out);
  REQUIRE(archive_write_add_filter_zstd(out) == ARCHIVE_OK);
  REQUIRE(archive_write_open_filename(out, to.c_str()) == ARCHIVE_OK);
  archive_entry* entry = archive_entry_new();
  archive_entry_set_pathname(entry, "data");
  archive_entry_set_filetype(entry, AE_IFREG);
  REQUIRE(archive_write_header(out, entry) == ARCHIVE_OK);
  REQUIRE(archive_write_data(out, bytes.data(), bytes.size()) == static_cast<la_ssize_t>(bytes.size()));
  archive_entry_free(entry);
  REQUIRE(archive_write_close(out) == ARCHIVE_OK);
  archive_write_free(out);
}

// As if it had been written an hour ago: the index of a shard that is seconds old is not kept.
inline void make_old(const std::string& path) {
  std::filesystem::last_write_time(path, std::filesystem::last_write_time(path) - std::chrono::hours(1));
}

}  // namespace twinlens::test
