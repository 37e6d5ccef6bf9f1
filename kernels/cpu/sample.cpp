#include "twinlens/kernels/sample.h"

#include "kernels/cpu/vec/math.h"

#include "twinlens/kernels/parallel.h"
#include "twinlens/kernels/philox.h"

namespace twinlens {
namespace {

template <class I, class T>
TWINLENS_INLINE float largest_of(const T* x, std::int64_t c) {
  Vec<I> largest(-__builtin_inff());
  for_lanes<I>(c, [&](std::int64_t i, std::int64_t n) { largest = Vec<I>::max(largest, load_lanes<I>(x + i, n, -__builtin_inff())); });
  return largest.max();
}

// Calls visit(i, weight) in order until it returns true.
template <class I, class T, class Visit>
TWINLENS_INLINE void for_weights(const T* x, std::int64_t c, bool logits, float largest, Visit visit) {
  constexpr std::int64_t kWidth = Vec<I>::kWidth;
  for (std::int64_t begin = 0; begin < c; begin += kWidth) {
    const std::int64_t n = c - begin < kWidth ? c - begin : kWidth;
    Vec<I> w = load_lanes<I>(x + begin, n);
    if (logits) w = Math<I>::exp_nonpositive(w - Vec<I>(largest));
    float weights[kWidth];
    w.store(weights);
    for (std::int64_t i = 0; i < n; ++i) {
      if (visit(begin + i, weights[i])) return;
    }
  }
}

template <class I, class T>
TWINLENS_INLINE std::int64_t drawn(const T* x, std::int64_t c, bool logits, double u) {
  const float largest = logits ? largest_of<I>(x, c) : 0.0F;
  double total = 0.0;
  std::int64_t last = -1;  // with a weight above 0
  bool valid = true;
  for_weights<I>(x, c, logits, largest, [&](std::int64_t i, float w) {
    valid = valid && w >= 0.0F;
    last = w > 0.0F ? i : last;
    total += static_cast<double>(w);
    return false;
  });
  if (!valid || last < 0 || total - total != 0.0) return -1;
  const double target = u * total;
  double sum = 0.0;
  std::int64_t found = last;  // where target is rounded up to the whole
  for_weights<I>(x, c, logits, largest, [&](std::int64_t i, float w) {
    sum += static_cast<double>(w);
    if (sum > target) found = i;
    return sum > target;
  });
  return found;
}

}  // namespace

template <class I>
void kernel(I, const SampleRows& a) {
  const std::uint64_t key = mix(mix(a.step->seed, a.step->step), a.site);
  const std::int64_t c = a.x.cols;
  visit_float(a.x.dtype, [&]<class T>(TypeTag<T>) {
    parallel_for(row_count(a.x), 4096 / (c + 1) + 1, [&](std::int64_t begin, std::int64_t end) {
      for (std::int64_t r = begin; r < end; ++r) {
        const auto sample = static_cast<std::uint64_t>(a.sample != nullptr ? a.sample[r] : r);
        const auto position = static_cast<std::uint64_t>(a.position != nullptr ? a.position[r] : 0);
        const Philox4 bits = philox(key, sample, position);
        const std::uint64_t word = std::uint64_t{bits.v[0]} << 32 | bits.v[1];
        a.index[r] = drawn<I>(a.x.row<T>(r), c, a.logits, static_cast<double>(word >> 11) * 0x1p-53);
      }
    });
  });
}
template void kernel(TWINLENS_ISA, const SampleRows&);

}  // namespace twinlens
