#include "clip/src/data/folder_walk.h"

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <filesystem>
#include <sys/stat.h>

#include "clip/src/data/file_names.h"

#include "twinlens/kernels/error.h"

namespace twinlens {
namespace {

namespace fs = std::filesystem;

constexpr const char* kNoFile = "not a file (a link that leads nowhere, or a pipe)";

}  // namespace

FolderWalk::FolderWalk(const std::string& root) {
  WalkedFile folder{root, {}};
  enter(folder, false);
  if (!folder.problem.empty()) throw FileError(folder.problem + "; " + root + "; check the path and its permissions");
}

bool FolderWalk::next(WalkedFile& file) {
  while (!levels_.empty()) {
    std::vector<Entry>& left = levels_.back().left;
    if (left.empty()) {
      levels_.pop_back();
      if (levels_.size() < linked_) linked_ = 0;
      continue;
    }
    const Entry entry = std::move(left.back());
    left.pop_back();
    file = entry.file;
    if (file.is_folder && file.problem.empty()) enter(file, entry.is_link);
    if (!file.is_folder || !file.problem.empty()) return true;
  }
  return false;
}

// Goes into a folder, or says what its problem is.
void FolderWalk::enter(WalkedFile& folder, bool is_link) {
  struct stat status {};
  if (::stat(folder.path.c_str(), &status) != 0) {
    folder.problem = "the folder cannot be read: " + std::string(std::strerror(errno));
    return;
  }
  const Identity identity{status.st_dev, status.st_ino};
  if (is_link && !may_follow(identity, folder)) return;
  Level level{identity, {}};
  std::error_code error, unreadable;
  for (fs::directory_iterator it(folder.path, error), end; !error && it != end; it.increment(error)) {
    const std::string path = it->path().string();
    if (is_of_mac(path)) continue;
    const bool hidden = is_hidden(it->path().filename().string());
    Entry entry{{path, {}}, it->is_symlink(unreadable)};
    entry.file.is_folder = it->is_directory(unreadable);
    if (!entry.file.is_folder) {
      const bool is_text = ends_like(path, {".txt"});
      if (!is_picture(path) && !is_foreign_picture(path) && !is_tar(path) && !is_text) continue;
      if (is_text && hidden) continue;
      if (!is_text && !it->is_regular_file(unreadable)) {
        entry.file.problem = kNoFile;  // (a pipe would be waited for)
      } else if (is_foreign_picture(path)) {
        entry.file.problem = kForeign;
      }
    }
    if (hidden) {
      entry.file.problem = kHidden;
      entry.file.by_rule = true;
    }
    level.left.push_back(std::move(entry));
  }
  if (error) {
    folder.problem = "the folder cannot be read: " + error.message();
    return;
  }
  std::sort(level.left.begin(), level.left.end(), [](const Entry& a, const Entry& b) { return a.file.path > b.file.path; });
  levels_.push_back(std::move(level));
}

bool FolderWalk::may_follow(const Identity& target, WalkedFile& link) {
  link.by_rule = true;
  if (std::any_of(levels_.begin(), levels_.end(), [&](const Level& level) { return level.folder == target; })) {
    link.problem = "a link to a folder that it lies in is not followed";
    return false;
  }
  if (linked_ == 0) {
    linked_ = levels_.size() + 1;
    led_to_.clear();
  }
  if (!led_to_.insert(target).second) {
    link.problem = "a link within a linked folder, to a folder that another one there has led to, is not followed";
    return false;
  }
  link.by_rule = false;
  return true;
}

}  // namespace twinlens
