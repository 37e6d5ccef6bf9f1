#pragma once
// A folder that may not be looked into while this lives: by its mode, and for root, whom no mode stops, as another user.

#include <cerrno>
#include <cstdlib>
#include <fcntl.h>
#include <string>
#include <sys/stat.h>
#include <unistd.h>
#include <utility>

namespace twinlens::test {

class WithoutPermission {
 public:
  explicit WithoutPermission(std::string folder) : folder_(std::move(folder)) {
    ::chmod(folder_.c_str(), 0);
    constexpr uid_t kNobody = 65534;
    is_other_ = ::geteuid() == 0 && ::seteuid(kNobody) == 0;
  }
  ~WithoutPermission() {
    if (is_other_ && ::seteuid(0) != 0) std::abort();
    ::chmod(folder_.c_str(), 0700);
  }
  WithoutPermission(const WithoutPermission&) = delete;
  WithoutPermission& operator=(const WithoutPermission&) = delete;

  // False where a user without rights cannot be had.
  bool holds() const {
    const int descriptor = ::open((folder_ + "/.").c_str(), O_RDONLY);
    if (descriptor >= 0) ::close(descriptor);
    return descriptor < 0 && errno == EACCES;
  }

 private:
  std::string folder_;
  bool is_other_ = false;
};

}  // namespace twinlens::test
