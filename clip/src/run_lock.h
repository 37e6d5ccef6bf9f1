#pragma once
// One process at a time in a run folder or an index: a second one would delete what the first is writing.

#include <filesystem>
#include <string>

namespace twinlens {

class RunLock {
 public:
  // Of a folder that exists. Throws ConfigError while another holds it: "another process `does`; FOLDER; wait for it, or `remedy`". Where
  // the file system has no locks there is none.
  explicit RunLock(const std::filesystem::path& folder, const std::string& does = "is training in this run folder",
                   const std::string& remedy = "choose another --name");
  ~RunLock();
  RunLock(const RunLock&) = delete;
  RunLock& operator=(const RunLock&) = delete;

 private:
  int file_;
};

}  // namespace twinlens
