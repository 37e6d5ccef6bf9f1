#pragma once
// What the readers of tars have in common.

#include <archive.h>
#include <archive_entry.h>
#include <cstdint>
#include <memory>
#include <string>

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
bool has_more(const InputFile& file, std::uint64_t begin);

// A tar packed by gzip, zstd, ...: unpacked by an archive of its own, so that what lies behind the tar's end can be looked at, of which
// one that also unpacks says nothing.
class PackedTar {
 public:
  // gzip, zstd, xz, bzip2, lz4, compress or lzip, by the first bytes.
  static bool is(const InputFile& file);

  // As archive_read_open_filename. Damage of the packing is an error of `reader`. It must outlive what `reader` reads.
  int open(archive* reader, const std::string& path);
  // After `reader` has come to its end: whether anything but zeros is left.
  bool has_more(archive* reader);

 private:
  static la_ssize_t give(archive* reader, void* self, const void** block);

  std::unique_ptr<archive, int (*)(archive*)> unpacked_{archive_read_new(), archive_read_free};
  const char* block_ = nullptr;  // given last, and how many bytes of the tar there are until its end
  std::size_t size_ = 0;
  std::uint64_t given_ = 0;
};

}  // namespace twinlens
