#include "twinlens/clip/picture_stream.h"

#include <algorithm>
#include <archive.h>
#include <archive_entry.h>
#include <filesystem>

#include "clip/src/data/file_names.h"

#include "twinlens/core/file.h"
#include "twinlens/kernels/error.h"

namespace twinlens {
namespace {

namespace fs = std::filesystem;

}  // namespace

struct PictureStream::Tar {
  std::string path;
  bool opened = false;
  std::unique_ptr<archive, int (*)(archive*)> reader{archive_read_new(), archive_read_free};

  explicit Tar(const std::string& name) : path(name) {
    static_cast<void>(InputFile(path));  // throws when the file is not there or cannot be opened
    archive_read_support_format_tar(reader.get());
    archive_read_support_filter_all(reader.get());
    opened = archive_read_open_filename(reader.get(), path.c_str(), 1 << 18) == ARCHIVE_OK;
  }
  EncodedPicture damage() const {
    const char* reason = archive_error_string(reader.get());
    return {path, {}, false, "the tar is damaged: " + std::string(reason == nullptr ? "unknown error" : reason) + "; fetch it again"};
  }
};

PictureStream::PictureStream(std::vector<std::string> sources) {
  for (auto it = sources.rbegin(); it != sources.rend(); ++it) left_.push_back({*it, true});
}
PictureStream::~PictureStream() = default;

void PictureStream::open(const std::string& path) {
  std::error_code error;
  if (fs::is_directory(path, error)) {
    std::vector<std::string> names;
    for (const auto& entry : fs::directory_iterator(path, error)) names.push_back(entry.path().string());
    if (error) throw FileError("the folder cannot be read: " + error.message() + "; " + path + "; check its permissions");
    std::sort(names.begin(), names.end(), std::greater<>());
    for (const std::string& name : names) {
      // Links to folders could lead round in a circle.
      const bool is_link = fs::is_symlink(name, error), is_folder = fs::is_directory(name, error);
      if (is_of_mac(name)) continue;
      if (is_folder ? !is_link : is_picture(name) || is_foreign_picture(name) || is_tar(name)) left_.push_back({name, false});
    }
  } else {
    tar_ = std::make_unique<Tar>(path);
  }
}

bool PictureStream::next_of_tar(EncodedPicture& picture) {
  archive_entry* entry = nullptr;
  const auto ends_damaged = [&] {
    picture = tar_->damage();
    tar_.reset();
    return true;
  };
  while (true) {
    if (!tar_->opened) return ends_damaged();
    const int status = archive_read_next_header(tar_->reader.get(), &entry);
    if (status == ARCHIVE_EOF) {
      tar_.reset();
      return false;
    }
    if (status < ARCHIVE_WARN) return ends_damaged();
    const char* utf8 = archive_entry_pathname_utf8(entry);
    const std::string member = utf8 != nullptr ? utf8 : archive_entry_pathname(entry);
    if (archive_entry_filetype(entry) != AE_IFREG || is_of_mac(member)) continue;
    if (is_foreign_picture(member)) {
      picture = {tar_->path + ":" + member, {}, false, kForeign};
      return true;
    }
    if (!is_picture(member)) continue;
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

bool PictureStream::next(EncodedPicture& picture) {
  while (true) {
    if (tar_ != nullptr && next_of_tar(picture)) return true;
    if (left_.empty()) return false;
    const Entry entry = left_.back();
    left_.pop_back();
    std::error_code ignored;
    if (fs::is_directory(entry.path, ignored) || is_tar(entry.path)) {
      open(entry.path);
      continue;
    }
    if (!entry.named && !fs::is_regular_file(entry.path, ignored)) {
      picture = {entry.path, {}, false, "not a file"};  // (a pipe would be waited for)
    } else if (!entry.named && is_foreign_picture(entry.path)) {
      picture = {entry.path, {}, false, kForeign};
    } else {
      try {
        picture = {entry.path, read_file(entry.path), entry.named};
      } catch (const FileError& e) {
        if (entry.named) throw;
        picture = {entry.path, {}, false, e.what()};
      }
    }
    return true;
  }
}

}  // namespace twinlens
