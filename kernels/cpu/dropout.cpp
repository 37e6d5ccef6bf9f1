#include "twinlens/kernels/dropout.h"

#include "kernels/cpu/vec/vec.h"

#include "twinlens/kernels/parallel.h"
#include "twinlens/kernels/philox.h"

namespace twinlens {

template <class I>
void kernel(I, const DropoutRows& a) {
  const std::uint64_t key = mix(mix(a.step->seed, a.step->step), a.site);
  const auto limit = static_cast<std::uint64_t>(a.p * 4294967296.0);  // a number below it is dropped
  const float scale = static_cast<float>(1.0 / (1.0 - a.p));
  const std::int64_t c = a.x.cols;
  visit_float(a.x.dtype, [&]<class T>(TypeTag<T>) {
    parallel_for(row_count(a.x), c > 0 ? 4096 / c + 1 : 4096, [&](std::int64_t begin, std::int64_t end) {
      for (std::int64_t r = begin; r < end; ++r) {
        const auto sample = static_cast<std::uint64_t>(a.sample != nullptr ? a.sample[r] : r);
        const std::int64_t first = (a.position != nullptr ? a.position[r] : 0) * c;
        const T* x = a.x.row<T>(r);
        T* y = a.y.row<T>(r);
        for (std::int64_t i = 0; i < c; ++i) {
          const auto at = static_cast<std::uint64_t>(first + i);
          const Philox4 bits = philox(key, sample, at >> 2);
          const bool keep = bits.v[at & 3U] >= limit;
          y[i] = Vec<I>::template narrow<T>(keep ? Vec<I>::widen(x[i]) * scale : 0.0F);
        }
      }
    });
  });
}
template void kernel(TWINLENS_ISA, const DropoutRows&);

}  // namespace twinlens
