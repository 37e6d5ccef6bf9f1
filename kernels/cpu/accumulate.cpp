#include "twinlens/kernels/accumulate.h"

#include "kernels/cpu/vec/vec.h"

#include "twinlens/kernels/parallel.h"

namespace twinlens {

template <class I>
void kernel(I, const Accumulate& a) {
  visit_float(a.x.dtype, [&]<class X>(TypeTag<X>) {
    visit_float(a.y.dtype, [&]<class Y>(TypeTag<Y>) {
      const X* x = a.x.as<X>();
      Y* y = a.y.as<Y>();
      parallel_for(a.y.count, kElementGrain, [&](std::int64_t begin, std::int64_t end) {
        for_lanes<I>(end - begin, [&](std::int64_t i, std::int64_t n) {
          const Vec<I> sum = Vec<I>::fma(Vec<I>(a.factor), load_lanes<I>(x + begin + i, n), load_lanes<I>(y + begin + i, n));
          store_lanes<I>(sum, y + begin + i, n);
        });
      });
    });
  });
}
template void kernel(TWINLENS_ISA, const Accumulate&);

}  // namespace twinlens
