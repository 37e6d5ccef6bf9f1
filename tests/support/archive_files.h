#pragma once
// Archives written by libarchive: tars and zips of members in memory.

#include <archive.h>
#include <archive_entry.h>
#include <catch2/catch.hpp>
#include <memory>
#include <string>
#include <utility>
#include <vector>

namespace twinlens::test {

using Members = std::vector<std::pair<std::string, std::string>>;  // name, bytes

// `set_up(archive*)` chooses format and filters.
template <class SetUp>
void write_archive(const std::string& path, const Members& members, const SetUp& set_up) {
  const std::unique_ptr<archive, int (*)(archive*)> out(archive_write_new(), archive_write_free);
  set_up(out.get());
  REQUIRE(archive_write_open_filename(out.get(), path.c_str()) == ARCHIVE_OK);
  for (const auto& [name, bytes] : members) {
    const std::unique_ptr<archive_entry, void (*)(archive_entry*)> entry(archive_entry_new(), archive_entry_free);
    archive_entry_set_pathname(entry.get(), name.c_str());
    archive_entry_set_size(entry.get(), static_cast<la_int64_t>(bytes.size()));
    archive_entry_set_filetype(entry.get(), name.ends_with('/') ? AE_IFDIR : AE_IFREG);
    archive_entry_set_perm(entry.get(), 0444);
    REQUIRE(archive_write_header(out.get(), entry.get()) >= ARCHIVE_WARN);  // it warns of names that the locale cannot express
    REQUIRE(archive_write_data(out.get(), bytes.data(), bytes.size()) == static_cast<la_ssize_t>(bytes.size()));
  }
  REQUIRE(archive_write_close(out.get()) == ARCHIVE_OK);
}

inline void write_tar(const std::string& path, const Members& members, int format = ARCHIVE_FORMAT_TAR_USTAR) {
  write_archive(path, members, [&](archive* out) { archive_write_set_format(out, format); });
}

}  // namespace twinlens::test
