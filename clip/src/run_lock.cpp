#include "clip/src/run_lock.h"

#include <cerrno>
#include <fcntl.h>
#include <string>
#include <sys/file.h>
#include <unistd.h>

#include "twinlens/kernels/error.h"

namespace twinlens {

RunLock::RunLock(const std::filesystem::path& folder) : file_(open(folder.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC)) {
  if (file_ < 0 || flock(file_, LOCK_EX | LOCK_NB) == 0 || errno != EWOULDBLOCK) return;
  close(file_);
  throw ConfigError("another process is training in this run folder; " + folder.string() + "; wait for it, or choose another --name");
}

RunLock::~RunLock() {
  if (file_ >= 0) close(file_);
}

}  // namespace twinlens
