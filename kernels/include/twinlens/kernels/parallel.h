#pragma once
// parallel_for: the only place with an OpenMP pragma (kernels/cpu/once/parallel.cpp). Work [0, n) is cut into chunks of `grain` elements
// (less than 1 counts as 1), whatever the number of threads, so a kernel that reduces per chunk and combines chunks in order gives the same
// bits for any of it. Nested calls run on the calling thread. f must not throw: an exception in a thread's share ends the program.

#include <cstdint>

namespace twinlens {

int thread_count();
// Threads used by parallel_for from now on; at least 1. The start value is OMP_NUM_THREADS or the number of cores this process may use.
void set_thread_count(int threads);

void parallel_for_chunks(std::int64_t n, std::int64_t grain, void (*body)(void*, std::int64_t, std::int64_t), void* context);

// A chunk of elementwise work: enough elements that handing it out costs nothing beside it.
inline constexpr std::int64_t kElementGrain = 16384;
// The same of n elements in all, a multiple of that. A chunk begins with lines that nobody has asked for, which costs a tenth of its time
// where they come from memory: where every thread has many, they are larger. (Not for what is reduced by chunks.)
[[gnu::always_inline]] inline std::int64_t element_grain(std::int64_t n) {
  const std::int64_t times = n / (32 * thread_count() * kElementGrain);
  return kElementGrain * (times < 1 ? 1 : times > 8 ? 8 : times);
}
// The same in rows.
[[gnu::always_inline]] inline std::int64_t row_grain(std::int64_t rows, std::int64_t columns) {
  return element_grain(rows * columns) / (columns + 1) + 1;
}

// Calls f(begin, end) for consecutive chunks of [0, n), each of at most `grain` elements, in any order and on any thread.
template <class F>
[[gnu::always_inline]] inline void parallel_for(std::int64_t n, std::int64_t grain, F f) {
  if (n <= 0) return;
  if (n <= grain) {
    f(std::int64_t{0}, n);
    return;
  }
  parallel_for_chunks(
      n, grain, [](void* context, std::int64_t begin, std::int64_t end) { (*static_cast<F*>(context))(begin, end); }, &f);
}

// n items in an order for handing out: `slots` runs of neighbours, an item of each in turn. While as many threads take turns, each goes
// through one run, and what it brought into its caches for an item, or hardware fetched behind it, serves the next.
struct Runs {
  std::int64_t n, slots;
  // Item of place i; n behind the last place.
  [[gnu::always_inline]] std::int64_t at(std::int64_t i) const {
    const std::int64_t run = i % slots, longer = n % slots;  // the first `longer` runs have one item more
    return i < n ? run * (n / slots) + (run < longer ? run : longer) + i / slots : n;
  }
};

// Calls f(slot, i) for every i in [0, n), in any order. Calls that run at the same time have different slots in [0, slots), so a slot can
// own scratch; what f computes for i must not depend on its slot. Work is handed out one i at a time, so uneven items balance.
template <class F>
[[gnu::always_inline]] inline void parallel_for_slots(std::int64_t n, std::int64_t slots, F f) {
  std::int64_t next = 0;
  parallel_for(slots < n ? slots : n, 1, [&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t slot = begin; slot < end; ++slot) {
      for (std::int64_t i = __atomic_fetch_add(&next, 1, __ATOMIC_RELAXED); i < n; i = __atomic_fetch_add(&next, 1, __ATOMIC_RELAXED))
        f(slot, i);
    }
  });
}

}  // namespace twinlens
