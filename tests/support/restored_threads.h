#pragma once
// The number of threads as it was, at the end of a scope.

#include "twinlens/kernels/parallel.h"

namespace twinlens::test {

class RestoredThreads {
 public:
  RestoredThreads() : before_(thread_count()) {}
  ~RestoredThreads() { set_thread_count(before_); }
  RestoredThreads(const RestoredThreads&) = delete;
  RestoredThreads& operator=(const RestoredThreads&) = delete;

 private:
  int before_;
};

}  // namespace twinlens::test
