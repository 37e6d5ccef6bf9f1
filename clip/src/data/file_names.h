#pragma once
// What a file is, by the end of its name, in either case.

#include <algorithm>
#include <cctype>
#include <initializer_list>
#include <string>

namespace twinlens {

inline bool ends_like(std::string name, std::initializer_list<const char*> endings) {
  std::transform(name.begin(), name.end(), name.begin(), [](unsigned char c) { return static_cast<char>(std::tolower(c)); });
  return std::any_of(endings.begin(), endings.end(), [&](const char* ending) { return name.ends_with(ending) && name != ending; });
}

inline bool is_picture(const std::string& name) {
  return ends_like(name, {".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".webp", ".bmp", ".gif", ".ppm", ".pgm", ".pnm", ".tga", ".psd"});
}
// Pictures that this program does not read: a user should hear of them.
inline bool is_foreign_picture(const std::string& name) {
  return ends_like(name, {".tif", ".tiff", ".avif", ".heic", ".heif", ".jp2", ".jxl", ".ico", ".svg"});
}
inline constexpr const char* kForeign = "a format that is not read; save it as PNG, JPEG or WebP";
// What macOS keeps beside a file on other disks and in archives.
inline bool is_of_mac(const std::string& path) {
  const std::size_t slash = path.find_last_of('/');
  return path.compare(slash == std::string::npos ? 0 : slash + 1, 2, "._") == 0 || path.find("__MACOSX/") != std::string::npos ||
         path.ends_with("__MACOSX");
}
// A file or a folder on a path within a folder or a tar whose name begins with a dot: .git, .ipynb_checkpoints, ...
inline bool is_hidden(const std::string& path) {
  for (std::size_t begin = 0; begin < path.size();) {
    const std::size_t end = std::min(path.find('/', begin), path.size());
    const std::string name = path.substr(begin, end - begin);
    if (name.starts_with('.') && name != "." && name != "..") return true;
    begin = end + 1;
  }
  return false;
}
inline constexpr const char* kHidden = "hidden (its name begins with a dot)";
// (Shards of a dataset may be packed by gzip or zstd only; those of another packing are refused when they are opened.)
inline bool is_tar(const std::string& name) {
  return ends_like(name, {".tar", ".tar.gz", ".tgz", ".tar.zst", ".tzst", ".tar.xz", ".txz", ".tar.bz2", ".tbz2"});
}
// What is kept beside a shard (tar_index.h), and matches where all files of a folder are asked for.
inline constexpr const char* kIndexEnding = ".twinlens-index";
inline bool is_shard_index(const std::string& name) { return name.ends_with(kIndexEnding); }
inline bool is_foreign_archive(const std::string& name) { return ends_like(name, {".zip", ".7z", ".rar"}); }
inline constexpr const char* kForeignArchive = "unpack it and give the folder, or a tar of it: tar --sort=name -C FOLDER -cf NEW.tar .";

}  // namespace twinlens
