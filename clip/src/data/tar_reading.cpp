#include "clip/src/data/tar_reading.h"

#include <algorithm>
#include <vector>

#include "twinlens/core/file.h"

namespace twinlens {
namespace {

bool any_byte(const char* begin, std::size_t size) {
  return std::any_of(begin, begin + size, [](char c) { return c != 0; });
}

// In the file, from `begin` on.
bool any_byte(const InputFile& file, std::uint64_t begin) {
  std::vector<char> block(std::size_t{1} << 16);
  for (std::uint64_t at = begin; at < file.size(); at += block.size()) {
    const auto n = static_cast<std::size_t>(std::min<std::uint64_t>(block.size(), file.size() - at));
    file.read_at(at, block.data(), n);
    if (any_byte(block.data(), n)) return true;
  }
  return false;
}

}  // namespace

bool open_unpacking(archive* stream, const std::string& path) {
  archive_read_support_format_raw(stream);
  archive_read_support_filter_all(stream);
  archive_entry* entry = nullptr;
  return archive_read_open_filename(stream, path.c_str(), 1 << 18) == ARCHIVE_OK && archive_read_next_header(stream, &entry) == ARCHIVE_OK;
}

int TarInput::open(archive* reader, const std::string& path) {
  path_ = path;
  const bool opened = open_unpacking(unpacked_.get(), path);
  is_packed_ = archive_filter_code(unpacked_.get(), 0) != ARCHIVE_FILTER_NONE;
  if (!is_packed_) return archive_read_open_filename(reader, path.c_str(), 1 << 18);  // which passes over what is not asked for
  if (opened) return archive_read_open(reader, this, nullptr, give, nullptr);
  const char* why = archive_error_string(unpacked_.get());
  archive_set_error(reader, archive_errno(unpacked_.get()), "%s", why != nullptr ? why : "there is nothing in it");
  return ARCHIVE_FATAL;
}

la_ssize_t TarInput::give(archive* reader, void* self, const void** block) {
  auto& tar = *static_cast<TarInput*>(self);
  la_int64_t at = 0;
  const int status = archive_read_data_block(tar.unpacked_.get(), block, &tar.size_, &at);
  if (status == ARCHIVE_EOF) {
    tar.size_ = 0;
  } else if (!was_read(status)) {
    tar.size_ = 0;
    archive_set_error(reader, archive_errno(tar.unpacked_.get()), "%s", archive_error_string(tar.unpacked_.get()));
    return -1;
  }
  tar.block_ = static_cast<const char*>(*block);
  tar.given_ += tar.size_;
  return static_cast<la_ssize_t>(tar.size_);
}

bool TarInput::has_more(archive* reader) {
  const auto taken = static_cast<std::uint64_t>(archive_filter_bytes(reader, 0));
  if (!is_packed_) return any_byte(InputFile(path_), taken);
  // Of the block that the reader has taken a part of. (None is there once all were asked for: then less than a record is left.)
  const auto left = static_cast<std::size_t>(std::min<std::uint64_t>(given_ - taken, size_));
  if (any_byte(block_ + size_ - left, left)) return true;
  const void* block = nullptr;
  la_ssize_t got = 0;
  while ((got = give(reader, this, &block)) > 0) {
    if (any_byte(block_, size_)) return true;
  }
  return got < 0;  // (damage of the packing)
}

}  // namespace twinlens
