#include "twinlens/clip/picture_stream.h"

#include <algorithm>
#include <archive.h>
#include <archive_entry.h>
#include <filesystem>

#include "clip/src/data/file_names.h"
#include "clip/src/data/folder_walk.h"
#include "clip/src/data/tar_reading.h"

#include "twinlens/core/file.h"
#include "twinlens/kernels/error.h"

namespace twinlens {
namespace {

namespace fs = std::filesystem;

}  // namespace

struct PictureStream::Tar {
  std::string path;
  bool opened = false;
  TarInput input;
  std::unique_ptr<archive, int (*)(archive*)> reader{archive_read_new(), archive_read_free};

  explicit Tar(const std::string& name) : path(name) {
    static_cast<void>(InputFile(path));  // throws when the file is not there or cannot be opened
    archive_read_support_format_tar(reader.get());
    opened = input.open(reader.get(), path) == ARCHIVE_OK;
  }
  EncodedPicture damage(const char* reason = nullptr) const {
    if (reason == nullptr) reason = archive_error_string(reader.get());
    return {path, {}, false, "the tar is damaged: " + std::string(reason == nullptr ? "unknown error" : reason) + "; fetch it again"};
  }
};

bool PictureStream::takes(const std::string& name) { return !is_hidden(name) && (is_picture(name) || is_tar(name)); }

PictureStream::PictureStream(std::vector<std::string> sources) : left_(std::move(sources)) { std::reverse(left_.begin(), left_.end()); }
PictureStream::~PictureStream() = default;

bool PictureStream::next_of_tar(EncodedPicture& picture) {
  archive_entry* entry = nullptr;
  const auto ends_damaged = [&](const char* reason = nullptr) {
    picture = tar_->damage(reason);
    tar_.reset();
    return true;
  };
  while (true) {
    if (!tar_->opened) return ends_damaged();
    const int status = archive_read_next_header(tar_->reader.get(), &entry);
    if (status == ARCHIVE_EOF) {
      if (tar_->input.has_more(tar_->reader.get())) return ends_damaged(kMoreBehindEnd);
      tar_.reset();
      return false;
    }
    if (!was_read(status)) return ends_damaged();
    const std::string member = name_of(entry);
    if (archive_entry_filetype(entry) != AE_IFREG || is_of_mac(member)) continue;
    if (!is_picture(member) && !is_foreign_picture(member)) continue;
    if (is_hidden(member) || is_foreign_picture(member)) {
      picture = {tar_->path + ":" + member, {}, false, is_hidden(member) ? kHidden : kForeign};
      return true;
    }
    picture = {tar_->path + ":" + member, {}, false};
    // By pieces: the size in the header is only a claim.
    char block[1 << 16];
    la_ssize_t got = 0;
    while ((got = archive_read_data(tar_->reader.get(), block, sizeof block)) > 0)
      picture.bytes.append(block, static_cast<std::size_t>(got));
    if (got < 0) return ends_damaged();
    return true;
  }
}

// False when the folder is at its end, or has come to a tar.
bool PictureStream::next_of_folder(EncodedPicture& picture) {
  for (WalkedFile file; folder_->next(file);) {
    picture = {file.path, {}, false, file.problem};
    if (!file.problem.empty()) return true;
    try {
      if (is_tar(file.path)) {
        tar_ = std::make_unique<Tar>(file.path);
        return false;
      }
      if (!is_picture(file.path)) continue;
      picture.bytes = read_file(file.path);
    } catch (const FileError& e) {
      picture.damage = e.what();
    }
    return true;
  }
  folder_.reset();
  return false;
}

bool PictureStream::next(EncodedPicture& picture) {
  while (true) {
    if (tar_ != nullptr && next_of_tar(picture)) return true;
    if (folder_ != nullptr) {
      if (next_of_folder(picture)) return true;
      continue;
    }
    if (left_.empty()) return false;
    const std::string path = std::move(left_.back());
    left_.pop_back();
    if (is_shard_index(path)) continue;
    std::error_code ignored;
    if (fs::is_directory(path, ignored)) {
      folder_ = std::make_unique<FolderWalk>(path);
    } else if (is_tar(path)) {
      tar_ = std::make_unique<Tar>(path);
    } else if (is_foreign_archive(path) && fs::exists(path, ignored)) {
      throw FileError("archives of this kind are not read; " + path + "; " + kForeignArchive);
    } else {
      picture = {path, read_file_or_pipe(path), true};
      return true;
    }
  }
}

}  // namespace twinlens
