#include "clip/src/data/tar_reading.h"

#include <algorithm>
#include <iterator>
#include <string_view>
#include <vector>

namespace twinlens {
namespace {

bool any_byte(const char* begin, std::size_t size) {
  return std::any_of(begin, begin + size, [](char c) { return c != 0; });
}

}  // namespace

bool has_more(const InputFile& file, std::uint64_t begin) {
  std::vector<char> block(std::size_t{1} << 16);
  for (std::uint64_t at = begin; at < file.size(); at += block.size()) {
    const auto n = static_cast<std::size_t>(std::min<std::uint64_t>(block.size(), file.size() - at));
    file.read_at(at, block.data(), n);
    if (any_byte(block.data(), n)) return true;
  }
  return false;
}

bool PackedTar::is(const InputFile& file) {
  using namespace std::string_view_literals;
  char start[6] = {};
  const auto n = static_cast<std::size_t>(std::min<std::uint64_t>(sizeof start, file.size()));
  file.read_at(0, start, n);
  constexpr std::string_view kinds[] = {"\x1f\x8b"sv,         "\x28\xb5\x2f\xfd"sv, "\xfd\x37zXZ"sv, "BZh"sv,
                                        "\x04\x22\x4d\x18"sv, "\x1f\x9d"sv,         "LZIP"sv};
  return std::any_of(std::begin(kinds), std::end(kinds),
                     [&](std::string_view kind) { return std::string_view(start, n).starts_with(kind); });
}

int PackedTar::open(archive* reader, const std::string& path) {
  archive_read_support_format_raw(unpacked_.get());
  archive_read_support_filter_all(unpacked_.get());
  archive_entry* entry = nullptr;
  if (archive_read_open_filename(unpacked_.get(), path.c_str(), 1 << 18) != ARCHIVE_OK ||
      archive_read_next_header(unpacked_.get(), &entry) != ARCHIVE_OK) {
    const char* why = archive_error_string(unpacked_.get());
    archive_set_error(reader, archive_errno(unpacked_.get()), "%s", why != nullptr ? why : "the file is empty");
    return ARCHIVE_FATAL;
  }
  return archive_read_open(reader, this, nullptr, give, nullptr);
}

la_ssize_t PackedTar::give(archive* reader, void* self, const void** block) {
  auto& tar = *static_cast<PackedTar*>(self);
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

bool PackedTar::has_more(archive* reader) {
  // Of the block that the reader has taken a part of. (None is there once all were asked for: then less than a record is left.)
  const auto taken = static_cast<std::uint64_t>(archive_filter_bytes(reader, 0));
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
