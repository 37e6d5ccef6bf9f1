#include "twinlens/kernels/affine.h"

#include "kernels/cpu/vec/vec.h"

#include "twinlens/kernels/parallel.h"

namespace twinlens {

template <class I>
void kernel(I, const Affine& a) {
  visit_float(a.x.dtype, [&]<class T>(TypeTag<T>) {
    const T* x = a.x.as<T>();
    T* y = a.y.as<T>();
    parallel_for(a.y.count, kElementGrain, [&](std::int64_t begin, std::int64_t end) {
      for_lanes<I>(end - begin, [&](std::int64_t i, std::int64_t n) {
        store_lanes<I>(Vec<I>::fma(Vec<I>(a.scale), load_lanes<I>(x + begin + i, n), Vec<I>(a.shift)), y + begin + i, n);
      });
    });
  });
}
template void kernel(TWINLENS_ISA, const Affine&);

}  // namespace twinlens
