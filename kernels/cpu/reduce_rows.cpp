#include "twinlens/kernels/reduce_rows.h"

#include "kernels/cpu/vec/vec.h"

#include "twinlens/kernels/parallel.h"

namespace twinlens {
namespace {

// Blocks of 4096 columns are summed by lanes, blocks in order: error grows with the number of blocks, not of columns.
template <class I, class T>
TWINLENS_INLINE float sum_row(const T* x, std::int64_t c) {
  constexpr std::int64_t kBlock = 4096;
  float total = 0.0F;
  for (std::int64_t begin = 0; begin < c; begin += kBlock) {
    const std::int64_t count = c - begin < kBlock ? c - begin : kBlock;
    Vec<I> sum(0.0F);
    for_lanes<I>(count, [&](std::int64_t i, std::int64_t n) { sum += load_lanes<I>(x + begin + i, n); });
    total += sum.sum();
  }
  return total;
}

}  // namespace

template <class I>
void kernel(I, const ReduceRows& a) {
  visit_float(a.x.dtype, [&]<class X>(TypeTag<X>) {
    visit_float(a.y.dtype, [&]<class Y>(TypeTag<Y>) {
      const std::int64_t c = a.x.cols;
      parallel_for(row_count(a.x), c > 0 ? 16384 / c + 1 : 16384, [&](std::int64_t begin, std::int64_t end) {
        for (std::int64_t r = begin; r < end; ++r) {
          a.y.as<Y>()[r] = Vec<I>::template narrow<Y>(a.factor * sum_row<I>(a.x.row<X>(r), c));
        }
      });
    });
  });
}
template void kernel(TWINLENS_ISA, const ReduceRows&);

}  // namespace twinlens
