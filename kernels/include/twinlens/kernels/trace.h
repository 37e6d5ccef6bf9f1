#pragma once
// Timing of kernels by name. Off by default; then a Trace costs one load. On a card a traced kernel is waited for, so that its time is its
// own.

#include <cstdint>
#include <string>
#include <vector>

#include "twinlens/kernels/stream.h"

namespace twinlens {

struct KernelTime {
  std::string name;
  std::int64_t calls = 0;
  double seconds = 0.0;
};

void set_tracing(bool on);
bool tracing();
// Times since tracing was switched on or last reset, slowest first. One table for all threads.
std::vector<KernelTime> kernel_times();
void reset_kernel_times();

class Trace {
 public:
  Trace(Stream& stream, const char* name);
  ~Trace();
  Trace(const Trace&) = delete;
  Trace& operator=(const Trace&) = delete;

 private:
  const char* name_;  // null while tracing is off
  Stream* stream_;
  std::int64_t start_;
};

}  // namespace twinlens
