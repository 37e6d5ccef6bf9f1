#include "twinlens/kernels/norm2.h"

#include <cmath>

#include "kernels/cpu/vec/vec.h"

#include "twinlens/kernels/parallel.h"

namespace twinlens {

template <class I>
void kernel(I, const SumOfSquares& a) {
  const std::int64_t blocks = (a.x.count + SumOfSquares::kBlock - 1) / SumOfSquares::kBlock;
  visit_float(a.x.dtype, [&]<class T>(TypeTag<T>) {
    const T* x = a.x.as<T>();
    parallel_for(a.x.count, SumOfSquares::kBlock, [&](std::int64_t begin, std::int64_t end) {
      constexpr int kLanes = 8;
      double sums[kLanes] = {};
      std::int64_t bad = 0;
      for (std::int64_t i = begin; i < end; ++i) {
        const double v = static_cast<double>(Vec<I>::widen(x[i]));
        sums[(i - begin) % kLanes] += v * v;
        bad += (v - v) != 0.0 ? 1 : 0;
      }
      double sum = 0.0;
      for (const double s : sums) sum += s;
      const std::int64_t block = begin / SumOfSquares::kBlock;
      a.scratch[2 * block] = sum;
      a.scratch[2 * block + 1] = static_cast<double>(bad);
    });
  });
  double sum = 0.0, bad = 0.0;
  for (std::int64_t b = 0; b < blocks; ++b) {
    sum += a.scratch[2 * b];
    bad += a.scratch[2 * b + 1];
  }
  *a.root = static_cast<float>(std::sqrt(sum));
  *a.nonfinite = static_cast<std::int64_t>(bad);
}
template void kernel(TWINLENS_ISA, const SumOfSquares&);

}  // namespace twinlens
