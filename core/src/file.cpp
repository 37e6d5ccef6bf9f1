#include "twinlens/core/file.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>

#include "twinlens/kernels/error.h"

namespace twinlens {
namespace {

namespace fs = std::filesystem;

[[noreturn]] void fail(const std::string& what, const fs::path& path, int error) {
  const char* remedy = error == ENOSPC || error == EFBIG || error == EDQUOT ? "free some disk space" : "check the path and its permissions";
  throw FileError(what + ": " + std::strerror(error) + "; " + path.string() + "; " + remedy);
}

// A file descriptor that closes itself.
class Descriptor {
 public:
  explicit Descriptor(int fd) : fd_(fd) {}
  ~Descriptor() {
    if (fd_ >= 0) ::close(fd_);
  }
  Descriptor(const Descriptor&) = delete;
  Descriptor& operator=(const Descriptor&) = delete;
  int get() const { return fd_; }
  int close() {
    const int result = ::close(fd_);
    fd_ = -1;
    return result;
  }

 private:
  int fd_;
};

void sync_folder(const fs::path& folder) {
  const Descriptor fd(::open(folder.empty() ? "." : folder.c_str(), O_RDONLY | O_DIRECTORY));
  if (fd.get() >= 0) ::fsync(fd.get());  // some file systems cannot; the data itself is synced already
}

void write_all(int fd, const void* data, std::size_t bytes, const fs::path& path) {
  const char* p = static_cast<const char*>(data);
  while (bytes > 0) {
    const ssize_t n = ::write(fd, p, bytes);
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) fail("cannot be written", path, errno);
    p += n;
    bytes -= static_cast<std::size_t>(n);
  }
}

}  // namespace

void rename_synced(const fs::path& from, const fs::path& to) {
  if (::rename(from.c_str(), to.c_str()) != 0) fail("cannot be renamed to " + to.string(), from, errno);
  sync_folder(to.parent_path());
}

void atomic_write(const fs::path& path, const std::function<void(const Sink&)>& write) {
  const fs::path temporary = path.string() + ".tmp" + std::to_string(::getpid());
  Descriptor fd(::open(temporary.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644));
  if (fd.get() < 0) fail("cannot be created", temporary, errno);
  try {
    write([&](const void* data, std::size_t bytes) { write_all(fd.get(), data, bytes, path); });
    if (::fsync(fd.get()) != 0) fail("cannot be synced", path, errno);
    if (fd.close() != 0) fail("cannot be closed", path, errno);
    rename_synced(temporary, path);
  } catch (...) {
    ::unlink(temporary.c_str());
    throw;
  }
}

void atomic_write(const fs::path& path, std::string_view bytes) {
  atomic_write(path, [&](const Sink& sink) { sink(bytes.data(), bytes.size()); });
}

std::string read_file(const fs::path& path) {
  const Descriptor fd(::open(path.c_str(), O_RDONLY | O_CLOEXEC));
  if (fd.get() < 0) fail("cannot be read", path, errno);
  struct stat info {};
  if (::fstat(fd.get(), &info) != 0) fail("cannot be read", path, errno);
  if (!S_ISREG(info.st_mode)) throw FileError("is not a file; " + path.string() + "; name a file");
  std::string bytes(static_cast<std::size_t>(info.st_size), '\0');
  std::size_t have = 0;
  while (have < bytes.size()) {
    const ssize_t n = ::read(fd.get(), bytes.data() + have, bytes.size() - have);
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) fail("cannot be read", path, errno);
    if (n == 0) break;
    have += static_cast<std::size_t>(n);
  }
  bytes.resize(have);
  return bytes;
}

}  // namespace twinlens
