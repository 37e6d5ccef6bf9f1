#include "clip/src/run_lock.h"

#include <cerrno>
#include <fcntl.h>
#include <sys/file.h>
#include <unistd.h>

#include "twinlens/kernels/error.h"

namespace twinlens {

RunLock::RunLock(const std::filesystem::path& folder, const std::string& does, const std::string& remedy)
    : file_(open(folder.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC)) {
  if (file_ < 0 || flock(file_, LOCK_EX | LOCK_NB) == 0 || errno != EWOULDBLOCK) return;
  close(file_);
  throw ConfigError("another process " + does + "; " + folder.string() + "; wait for it, or " + remedy);
}

RunLock::~RunLock() {
  if (file_ >= 0) close(file_);
}

}  // namespace twinlens
