#pragma once
// Files that are never seen half written: bytes go to a temporary in the same folder, are synced, and the temporary is renamed.

#include <filesystem>
#include <functional>
#include <string>
#include <string_view>

namespace twinlens {

// Replaces `path` by `bytes`. On any failure the old file is untouched, the temporary is gone, and FileError says why.
void atomic_write(const std::filesystem::path& path, std::string_view bytes);

// The same for large files: `write` is given a sink to call with consecutive pieces.
using Sink = std::function<void(const void* data, std::size_t bytes)>;
void atomic_write(const std::filesystem::path& path, const std::function<void(const Sink& sink)>& write);

// Renames a finished file or folder and syncs the folder that holds it. Throws FileError.
void rename_synced(const std::filesystem::path& from, const std::filesystem::path& to);

// The whole file. Throws FileError.
std::string read_file(const std::filesystem::path& path);

}  // namespace twinlens
