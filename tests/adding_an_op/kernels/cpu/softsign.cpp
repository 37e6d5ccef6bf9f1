#include "twinlens/kernels/softsign.h"

#include "kernels/cpu/vec/vec.h"

#include "twinlens/kernels/parallel.h"

namespace twinlens {

template <class I>
void kernel(I, const SoftsignForward& a) {
  using V = Vec<I>;
  visit_float(a.x.dtype, [&]<class T>(TypeTag<T>) {
    const T* x = a.x.as<T>();
    T* y = a.y.as<T>();
    parallel_for(a.y.count, 16384, [&](std::int64_t begin, std::int64_t end) {
      for_lanes<I>(end - begin, [&](std::int64_t i, std::int64_t n) {
        const V v = load_lanes<I>(x + begin + i, n);
        store_lanes<I>(v / (V(1.0F) + V::abs(v)), y + begin + i, n);
      });
    });
  });
}
template void kernel(TWINLENS_ISA, const SoftsignForward&);

template <class I>
void kernel(I, const SoftsignBackward& a) {
  using V = Vec<I>;
  visit_float(a.x.dtype, [&]<class T>(TypeTag<T>) {
    visit_float(a.dy.dtype, [&]<class D>(TypeTag<D>) {
      const T* x = a.x.as<T>();
      const D* dy = a.dy.as<D>();
      T* dx = a.dx.as<T>();
      parallel_for(a.dx.count, 16384, [&](std::int64_t begin, std::int64_t end) {
        for_lanes<I>(end - begin, [&](std::int64_t i, std::int64_t n) {
          const V root = V(1.0F) + V::abs(load_lanes<I>(x + begin + i, n));
          store_lanes<I>(load_lanes<I>(dy + begin + i, n) / (root * root), dx + begin + i, n);
        });
      });
    });
  });
}
template void kernel(TWINLENS_ISA, const SoftsignBackward&);

}  // namespace twinlens
