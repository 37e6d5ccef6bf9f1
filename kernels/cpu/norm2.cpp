#include "twinlens/kernels/norm2.h"

#include <cmath>
#include <cstring>

#include "kernels/cpu/vec/vec.h"

#include "twinlens/kernels/parallel.h"

namespace twinlens {

template <class I>
void kernel(I, const SumOfSquares& a) {
  const std::int64_t blocks = (a.x.count + SumOfSquares::kBlock - 1) / SumOfSquares::kBlock;
  visit_float(a.x.dtype, [&]<class T>(TypeTag<T>) {
    const T* x = a.x.as<T>();
    parallel_for(a.x.count, SumOfSquares::kBlock, [&](std::int64_t begin, std::int64_t end) {
      constexpr int kLanes = 8, kChains = 2;
      typedef float Floats __attribute__((vector_size(32)));
      typedef double Doubles __attribute__((vector_size(64)));
      typedef std::int64_t Masks __attribute__((vector_size(64)));
      Doubles sums[kChains] = {};
      Masks bad_lanes{};
      std::int64_t i = begin;
      for (; i + kChains * kLanes <= end; i += kChains * kLanes) {
        float lanes[kChains * kLanes];
        for (int l = 0; l < kChains * kLanes; l += Vec<I>::kWidth) Vec<I>::load(x + i + l).store(lanes + l);
        for (int chain = 0; chain < kChains; ++chain) {
          Floats f;
          std::memcpy(&f, lanes + chain * kLanes, sizeof(f));
          const Doubles v = __builtin_convertvector(f, Doubles);
          sums[chain] += v * v;
          bad_lanes -= (v - v) != 0.0;
        }
      }
      double sum = 0.0;
      std::int64_t bad = 0;
      for (int l = 0; l < kLanes; ++l) {
        sum += sums[0][l] + sums[1][l];
        bad += bad_lanes[l];
      }
      for (; i < end; ++i) {
        const double v = static_cast<double>(Vec<I>::widen(x[i]));
        sum += v * v;
        bad += (v - v) != 0.0 ? 1 : 0;
      }
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
