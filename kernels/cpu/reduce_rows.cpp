#include "twinlens/kernels/reduce_rows.h"

#include "kernels/cpu/vec/vec.h"

#include "twinlens/kernels/parallel.h"

namespace twinlens {
namespace {

// Blocks of 4096 columns are summed by lanes in four chains, blocks in order and in double: few roundings in a row, whatever the length.
template <class I, class T>
TWINLENS_INLINE float sum_row(const T* x, std::int64_t c) {
  using V = Vec<I>;
  constexpr std::int64_t kBlock = 4096, kChains = 4, kStep = kChains * V::kWidth;
  double total = 0.0;
  for (std::int64_t begin = 0; begin < c; begin += kBlock) {
    const std::int64_t count = c - begin < kBlock ? c - begin : kBlock;
    const T* block = x + begin;
    V sum[kChains] = {V(0.0F), V(0.0F), V(0.0F), V(0.0F)};
    std::int64_t i = 0;
    for (; i + kStep <= count; i += kStep) {
#pragma GCC unroll 4
      for (std::int64_t chain = 0; chain < kChains; ++chain) sum[chain] += V::load(block + i + chain * V::kWidth);
    }
    for_lanes<I>(count - i, [&](std::int64_t j, std::int64_t n) { sum[0] += load_lanes<I>(block + i + j, n); });
    total += static_cast<double>(((sum[0] + sum[1]) + (sum[2] + sum[3])).sum());
  }
  return static_cast<float>(total);
}

}  // namespace

template <class I>
void kernel(I, const ReduceRows& a) {
  visit_float(a.x.dtype, [&]<class X>(TypeTag<X>) {
    visit_float(a.y.dtype, [&]<class Y>(TypeTag<Y>) {
      const std::int64_t c = a.x.cols;
      parallel_for(row_count(a.x), row_grain(row_count(a.x), c), [&](std::int64_t begin, std::int64_t end) {
        for (std::int64_t r = begin; r < end; ++r) {
          a.y.as<Y>()[r] = Vec<I>::template narrow<Y>(a.factor * sum_row<I>(a.x.row<X>(r), c));
        }
      });
    });
  });
}
template void kernel(TWINLENS_ISA, const ReduceRows&);

}  // namespace twinlens
