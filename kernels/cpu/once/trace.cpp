#include "twinlens/kernels/trace.h"

#include <algorithm>
#include <atomic>
#include <chrono>
#include <map>
#include <mutex>

namespace twinlens {
namespace {

std::atomic<bool> is_on{false};

struct Table {
  std::mutex mutex;
  std::map<std::string, KernelTime> times;
};

Table& table() {
  static Table t;
  return t;
}

std::int64_t now_ns() {
  return std::chrono::duration_cast<std::chrono::nanoseconds>(std::chrono::steady_clock::now().time_since_epoch()).count();
}

}  // namespace

void set_tracing(bool on) { is_on.store(on); }
bool tracing() { return is_on.load(std::memory_order_relaxed); }

std::vector<KernelTime> kernel_times() {
  Table& t = table();
  const std::lock_guard lock(t.mutex);
  std::vector<KernelTime> out;
  for (const auto& [name, time] : t.times) out.push_back(time);
  std::sort(out.begin(), out.end(), [](const KernelTime& a, const KernelTime& b) { return a.seconds > b.seconds; });
  return out;
}

void reset_kernel_times() {
  Table& t = table();
  const std::lock_guard lock(t.mutex);
  t.times.clear();
}

Trace::Trace(Stream& stream, const char* name) : name_(tracing() ? name : nullptr), stream_(&stream), start_(0) {
  if (name_ != nullptr) start_ = now_ns();
}

Trace::~Trace() {
  if (name_ == nullptr) return;
  synchronize(*stream_);
  const double seconds = static_cast<double>(now_ns() - start_) * 1e-9;
  Table& t = table();
  const std::lock_guard lock(t.mutex);
  KernelTime& time = t.times[name_];
  time.name = name_;
  time.calls += 1;
  time.seconds += seconds;
}

}  // namespace twinlens
