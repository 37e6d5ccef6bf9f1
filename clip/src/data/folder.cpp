// A folder of pictures. A .txt of the same name (in either case) is the caption; where no picture has one, the folder that a picture lies
// in is its class.

#include <algorithm>
#include <filesystem>
#include <map>

#include "clip/src/data/dataset_base.h"
#include "clip/src/data/file_names.h"
#include "clip/src/data/folder_walk.h"

#include "twinlens/clip/templates.h"
#include "twinlens/core/file.h"
#include "twinlens/kernels/error.h"

namespace twinlens {
namespace {

namespace fs = std::filesystem;

class FolderDataset final : public IndexedDataset {
 public:
  FolderDataset(const std::string& root, const DatasetOptions& options) : root_(fs::path(root).lexically_normal()) {
    if (!root_.has_filename() && root_.has_parent_path()) root_ = root_.parent_path();  // (a slash at the end)
    std::vector<fs::path> pictures;
    std::string tar;
    FolderWalk walk(root_.string());
    for (WalkedFile file; walk.next(file);) {
      if (is_tar(file.path) && !file.is_folder) {
        if (tar.empty()) tar = file.path;
        continue;
      }
      if (!file.problem.empty()) {
        skip({fs::path(file.path).lexically_relative(root_).string(), file.problem, file.by_rule});
      } else if (ends_like(file.path, {".txt"})) {
        note_text(file.path);
      } else if (is_picture(file.path)) {
        pictures.emplace_back(file.path);
      }
    }
    has_texts_ = std::any_of(pictures.begin(), pictures.end(), [&](const fs::path& picture) { return texts_.count(stem_of(picture)) > 0; });
    for (const fs::path& picture : pictures) add(picture, options);
    if (size() == 0) {
      throw FileError("no pictures with captions; " + root + " has " + std::to_string(pictures.size()) + " pictures" + first_skipped() +
                      (tar.empty() ? "; put NAME.txt beside NAME.png, or pictures into one folder per class"
                                   : "; it has shards: give them by name, as '" + (fs::path(tar).parent_path() / "*.tar").string() + "'"));
    }
  }

  std::string key(std::int64_t i) const override { return at(i).lexically_relative(root_).string(); }
  bool has_classes() const override { return !has_texts_; }
  std::string image_bytes(std::int64_t i) const override { return read_file(at(i).string()); }
  std::string field(std::int64_t i, const std::string& name) const override {
    return name == "class" ? at(i).parent_path().filename().string() : std::string();
  }

 private:
  std::string first_skipped() const {
    if (skipped().empty()) return {};
    return " (" + std::to_string(skipped().size()) + " left out, first: " + skipped()[0].key + ": " + skipped()[0].reason + ")";
  }
  static std::string stem_of(fs::path file) { return file.replace_extension().string(); }
  void note_text(const fs::path& text) {
    const auto [it, is_new] = texts_.try_emplace(stem_of(text), text);
    if (!is_new && text.extension() == ".txt") it->second = text;
  }

  void add(const fs::path& picture, const DatasetOptions& options) {
    const std::string name = picture.lexically_relative(root_).string();  // (fs::relative would follow links)
    std::error_code unreadable;
    note_source(std::to_string(fs::file_size(picture, unreadable)));
    std::string caption;
    if (has_texts_) {
      const auto text = texts_.find(stem_of(picture));
      if (text == texts_.end()) return skip({name, "no caption; " + picture.stem().string() + ".txt is not there"});
      try {
        caption = read_file(text->second.string());
      } catch (const FileError& e) {
        return skip({name, "the caption cannot be read: " + std::string(e.what())});
      }
    } else {
      if (picture.parent_path() == root_) return skip({name, "no caption: neither a .txt beside it nor a class folder around it"});
      std::string label = picture.parent_path().filename().string();
      std::replace(label.begin(), label.end(), '_', ' ');
      caption = fill_template(options.class_caption, label);
    }
    if (add_sample(name, caption)) paths_.push_back(picture);
  }
  const fs::path& at(std::int64_t i) const { return paths_.at(static_cast<std::size_t>(i)); }

  fs::path root_;
  bool has_texts_ = false;
  std::map<std::string, fs::path> texts_;  // by path without extension
  std::vector<fs::path> paths_;
};

}  // namespace

std::shared_ptr<const Dataset> open_folder(const std::string& path, const DatasetOptions& options) {
  return std::make_shared<FolderDataset>(path, options);
}

}  // namespace twinlens
