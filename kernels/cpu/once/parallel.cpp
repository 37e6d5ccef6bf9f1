#include "twinlens/kernels/parallel.h"

#include <atomic>
#include <omp.h>

namespace twinlens {
namespace {

std::atomic<int>& threads() {
  static std::atomic<int> count{omp_get_max_threads()};
  return count;
}

}  // namespace

int thread_count() { return threads().load(std::memory_order_relaxed); }

void set_thread_count(int count) { threads().store(count < 1 ? 1 : count, std::memory_order_relaxed); }

void parallel_for_chunks(std::int64_t n, std::int64_t grain, void (*body)(void*, std::int64_t, std::int64_t), void* context) {
  grain = grain < 1 ? 1 : grain;
  const std::int64_t chunks = (n + grain - 1) / grain;
  const auto run_chunk = [&](std::int64_t chunk) {
    const std::int64_t begin = chunk * grain;
    body(context, begin, begin + grain < n ? begin + grain : n);
  };
  const int wanted = static_cast<int>(chunks < thread_count() ? chunks : thread_count());
  if (wanted <= 1 || omp_in_parallel()) {
    for (std::int64_t chunk = 0; chunk < chunks; ++chunk) run_chunk(chunk);
    return;
  }
#pragma omp parallel for num_threads(wanted) schedule(dynamic, 1)
  for (std::int64_t chunk = 0; chunk < chunks; ++chunk) run_chunk(chunk);
}

}  // namespace twinlens
