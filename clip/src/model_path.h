#pragma once
// What lies under the path of a model.

#include <filesystem>

#include "twinlens/kernels/error.h"

namespace twinlens {

// What may not be looked at is not the same as what is not there.
inline std::filesystem::file_status status_of(const std::filesystem::path& path) {
  std::error_code error;
  const std::filesystem::file_status status = std::filesystem::status(path, error);
  if (error == std::errc::permission_denied)
    throw FileError("model cannot be looked at: " + error.message() + "; " + path.string() +
                    "; change the permissions of the folders that it lies in");
  return status;
}
inline bool is_file(const std::filesystem::path& path) { return std::filesystem::is_regular_file(status_of(path)); }
inline bool is_folder(const std::filesystem::path& path) { return std::filesystem::is_directory(status_of(path)); }

}  // namespace twinlens
