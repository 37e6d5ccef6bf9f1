#include "twinlens/core/file.h"

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <cstdio>
#include <cstring>
#include <fcntl.h>
#include <filesystem>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>
#include <utility>

#include "twinlens/kernels/error.h"

namespace twinlens {
namespace {

constexpr std::size_t kLargestCall = std::size_t{1} << 30;  // read and write take no more than 2 GiB at once

std::string folder_of(const std::string& path) {
  const auto slash = path.rfind('/');
  if (slash == std::string::npos) return ".";
  return slash == 0 ? "/" : path.substr(0, slash);
}

const char* remedy(int error) {
  switch (error) {
    case ENOENT: return "check the path; its folder must exist";
    case EACCES:
    case EPERM:
    case EROFS: return "choose a place you may write and read, or change the permissions";
    case ENOSPC:
    case EDQUOT:
    case EFBIG: return "free some space or choose another disk";
    case EISDIR: return "give a file, not a folder";
    default: return "check the path and the disk";
  }
}

[[noreturn]] void fail_with_errno(const std::string& what, const std::string& path, const char* suffix = "") {
  const int error = errno;
  throw FileError(what + ": " + std::strerror(error) + "; '" + path + "'" + suffix + "; " + remedy(error));
}

[[noreturn]] void refuse_other(const std::string& path, const char* advice = "") {
  throw FileError("not a file but a device, a pipe or a socket; '" + path + "'; give the name of a file" + advice);
}

// For reading. (A pipe would have open() wait for who writes into it.)
int open_now(const std::string& path) { return ::open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK); }

// Of what was opened for reading anywhere in it; closed and refused where that is no file.
struct stat status_of_file(int descriptor, const std::string& path, const char* failure) {
  struct stat status {};
  const int error = ::fstat(descriptor, &status) != 0 ? errno : 0;
  if (error == 0 && S_ISREG(status.st_mode)) return status;
  ::close(descriptor);
  if (error == 0 && !S_ISDIR(status.st_mode)) refuse_other(path, ", and write what comes through a pipe to one first");
  errno = error == 0 ? EISDIR : error;
  fail_with_errno(failure, path);
}

// A rename is on the disk once its folder is. File systems that cannot sync a folder say EINVAL; then there is nothing more to do.
bool sync_folder(const std::string& folder) {
  const int descriptor = ::open(folder.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  if (descriptor < 0) return false;
  const bool done = ::fsync(descriptor) == 0 || errno == EINVAL || errno == ENOTSUP;
  const int error = errno;
  ::close(descriptor);
  errno = error;
  return done;
}

// A pipe has no size: it is read to its end.
std::string read_pipe(const std::string& path) {
  const int descriptor = ::open(path.c_str(), O_RDONLY | O_CLOEXEC);
  if (descriptor < 0) fail_with_errno("cannot open the file", path);
  std::string bytes;
  char block[1 << 16];
  ssize_t got = 0;
  while ((got = ::read(descriptor, block, sizeof block)) > 0 || (got < 0 && errno == EINTR)) {
    if (got > 0) bytes.append(block, static_cast<std::size_t>(got));
  }
  const int error = errno;
  ::close(descriptor);
  errno = error;
  if (got < 0) fail_with_errno("cannot read the file", path);
  return bytes;
}

}  // namespace

AtomicFile::AtomicFile(std::string path) : path_(std::move(path)) {
  // The temporary one beside it would have a name, and only the renaming fail, after all the work.
  if (path_.empty()) throw FileError("a file without a name; ''; give the name of a file");
  std::error_code error;
  if (const auto target = std::filesystem::canonical(path_, error); !error && std::filesystem::is_symlink(path_, error)) {
    path_ = target.string();
  }
  // Renaming would put a file in its place: /dev/null would be one for everybody.
  if (const auto there = std::filesystem::status(path_, error); std::filesystem::is_other(there)) {
    refuse_other(path_);
  } else if (std::filesystem::is_directory(there)) {
    throw FileError("not a file but a folder; '" + path_ + "'; give the name of a file");
  }
  static std::atomic<unsigned> counter{0};
  do {
    // A name left behind by a process that was killed is passed over.
    temporary_ = path_ + ".tmp-" + std::to_string(::getpid()) + "-" + std::to_string(counter++);
    descriptor_ = ::open(temporary_.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0666);
  } while (descriptor_ < 0 && errno == EEXIST);
  if (descriptor_ < 0) fail_with_errno("cannot create the file", path_);
}

AtomicFile::~AtomicFile() {
  if (descriptor_ >= 0) ::close(descriptor_);
  if (!temporary_.empty()) ::unlink(temporary_.c_str());
}

void AtomicFile::fail(const char* what) const {
  const int error = errno;
  std::error_code ignored;
  const bool there = std::filesystem::exists(path_, ignored);
  errno = error;
  fail_with_errno(what, path_, there ? ", which is left as it was" : "");
}

void AtomicFile::write(const void* bytes, std::size_t count) {
  const char* p = static_cast<const char*>(bytes);
  while (count > 0) {
    const ssize_t written = ::write(descriptor_, p, count < kLargestCall ? count : kLargestCall);
    if (written < 0 && errno == EINTR) continue;
    if (written < 0) fail("cannot write the file");
    p += written;
    count -= static_cast<std::size_t>(written);
  }
}

void AtomicFile::commit() {
  if (::fsync(descriptor_) != 0) fail("cannot bring the file to the disk");
  // Some file systems report a full disk only here.
  if (::close(std::exchange(descriptor_, -1)) != 0) fail("cannot close the file");
  if (std::rename(temporary_.c_str(), path_.c_str()) != 0) fail("cannot rename the finished file");
  temporary_.clear();
  if (!sync_folder(folder_of(path_))) fail_with_errno("the file is written but its folder cannot be brought to the disk", path_);
}

void atomic_write(const std::string& path, std::string_view bytes) {
  AtomicFile file(path);
  file.write(bytes.data(), bytes.size());
  file.commit();
}

InputFile::InputFile(std::string path) : path_(std::move(path)), descriptor_(open_now(path_)) {
  if (descriptor_ < 0) fail_with_errno("cannot open the file", path_);
  const struct stat status = status_of_file(descriptor_, path_, "cannot open the file");
  size_ = static_cast<std::uint64_t>(status.st_size);
  modified_ = std::int64_t{status.st_mtim.tv_sec} * 1'000'000'000 + status.st_mtim.tv_nsec;
}

InputFile::InputFile(InputFile&& other) noexcept
    : path_(std::move(other.path_)), descriptor_(std::exchange(other.descriptor_, -1)), size_(other.size_), modified_(other.modified_) {}

InputFile::~InputFile() {
  if (descriptor_ >= 0) ::close(descriptor_);
}

void InputFile::read_at(std::uint64_t offset, void* to, std::size_t count) const {
  char* p = static_cast<char*>(to);
  while (count > 0) {
    const ssize_t got = ::pread(descriptor_, p, count < kLargestCall ? count : kLargestCall, static_cast<off_t>(offset));
    if (got < 0 && errno == EINTR) continue;
    if (got < 0) fail_with_errno("cannot read the file", path_);
    if (got == 0) {
      struct stat now {};
      const std::uint64_t end =
          ::fstat(descriptor_, &now) == 0 ? std::min(static_cast<std::uint64_t>(now.st_size), offset) : std::min(offset, size_);
      throw FileError("the file ends at byte " + std::to_string(end) + ", " + std::to_string(offset + count - end) + " bytes early; '" +
                      path_ + "'; " +
                      (end < size_ ? "it was cut short while being read: fetch or write it again"
                                   : "what says that it has more (a header, an index) is wrong, or is that of another file"));
    }
    p += got;
    offset += static_cast<std::uint64_t>(got);
    count -= static_cast<std::size_t>(got);
  }
}

void InputFile::will_need(std::uint64_t offset, std::uint64_t count) const {
  ::posix_fadvise(descriptor_, static_cast<off_t>(offset), static_cast<off_t>(count), POSIX_FADV_WILLNEED);
}

MappedFile::MappedFile(const std::string& path) {
  const int descriptor = open_now(path);
  if (descriptor < 0) fail_with_errno("cannot open the file", path);
  const struct stat status = status_of_file(descriptor, path, "cannot map the file");
  int error = 0;
  if (status.st_size > 0) {
    size_ = static_cast<std::size_t>(status.st_size);
    void* mapped = ::mmap(nullptr, size_, PROT_READ, MAP_SHARED, descriptor, 0);
    if (mapped == MAP_FAILED)
      error = errno;
    else
      data_ = static_cast<const char*>(mapped);
  }
  ::close(descriptor);
  if (error != 0) {
    errno = error;
    fail_with_errno("cannot map the file", path);
  }
}

MappedFile::~MappedFile() {
  if (data_ != nullptr) ::munmap(const_cast<char*>(data_), size_);
}

bool make_folder(const std::string& path) {
  std::error_code error;
  const bool is_new = std::filesystem::create_directories(path, error);
  if (error) throw FileError("folder cannot be made: " + error.message() + "; " + path + "; check permissions and free space");
  return is_new;
}

NewFolder::NewFolder(std::string path) : path_(std::move(path)), is_new_(make_folder(path_)) {}
NewFolder::~NewFolder() {
  std::error_code has_files;
  if (is_new_) std::filesystem::remove(path_, has_files);
}

void rename_synced(const std::string& from, const std::string& to) {
  if (::rename(from.c_str(), to.c_str()) != 0) fail_with_errno("cannot be renamed to '" + to + "'", from);
  if (!sync_folder(folder_of(to))) fail_with_errno("is renamed but its folder cannot be brought to the disk", to);
}

void replace_folder(const std::string& from, const std::string& to) {
  std::error_code ignored;
  if (::renameat2(AT_FDCWD, from.c_str(), AT_FDCWD, to.c_str(), RENAME_EXCHANGE) == 0) {
    if (!sync_folder(folder_of(to))) fail_with_errno("is renamed but its folder cannot be brought to the disk", to);
    std::filesystem::remove_all(from, ignored);
    return;
  }
  std::filesystem::remove_all(to, ignored);
  rename_synced(from, to);
}

std::string read_file(const std::string& path) {
  const InputFile file(path);
  std::string bytes(static_cast<std::size_t>(file.size()), '\0');
  file.read_at(0, bytes.data(), bytes.size());
  return bytes;
}

std::string read_file_or_pipe(const std::string& path) {
  struct stat status {};
  return ::stat(path.c_str(), &status) == 0 && S_ISFIFO(status.st_mode) ? read_pipe(path) : read_file(path);
}

}  // namespace twinlens
