#pragma once
// What the readers of tars have in common.

#include <archive.h>
#include <archive_entry.h>
#include <cstdint>
#include <memory>
#include <string>

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

// Opens the file as one stream of bytes, unpacked where it is packed. False when there is nothing to read or the packing is damaged.
bool open_unpacking(archive* stream, const std::string& path);

// What a tar is read from. A packed one is unpacked by an archive of its own: of what lies behind the tar's end one that does both says
// nothing.
class TarInput {
 public:
  // As archive_read_open_filename, for a reader of the tar format alone. Damage of a packing is an error of `reader`. The input must
  // outlive what `reader` reads.
  int open(archive* reader, const std::string& path);
  // After `reader` has come to its end: whether anything but zeros is left.
  bool has_more(archive* reader);

 private:
  static la_ssize_t give(archive* reader, void* self, const void** block);

  std::string path_;
  bool is_packed_ = false;
  std::unique_ptr<archive, int (*)(archive*)> unpacked_{archive_read_new(), archive_read_free};
  const char* block_ = nullptr;  // given last, and how many bytes of the tar there are until its end
  std::size_t size_ = 0;
  std::uint64_t given_ = 0;
};

}  // namespace twinlens
