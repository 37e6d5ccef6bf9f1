#pragma once
// One process at a time in a run folder: a second one would delete what the first is writing.

#include <filesystem>

namespace twinlens {

class RunLock {
 public:
  // Of a folder that exists. Throws ConfigError while another holds it. Where the file system has no locks there is none.
  explicit RunLock(const std::filesystem::path& folder);
  ~RunLock();
  RunLock(const RunLock&) = delete;
  RunLock& operator=(const RunLock&) = delete;

 private:
  int file_;
};

}  // namespace twinlens
