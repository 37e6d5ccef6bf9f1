#include "twinlens/kernels/bias_gradient.h"

#include "kernels/cpu/vec/activation.h"
#include "twinlens/kernels/parallel.h"

namespace twinlens {
namespace {

// Rows [begin, end) of dpre, added to `sums` when a bias gradient is wanted.
template <class I, class F, class D, class P>
void rows_of_gradient(const BiasGradient& a, std::int64_t begin, std::int64_t end, float* sums) {
  using V = Vec<I>;
  for (std::int64_t r = begin; r < end; ++r) {
    const D* dy = a.dy.row<D>(r);
    for_lanes<I>(a.dy.cols, [&](std::int64_t i, std::int64_t n) {
      V d = load_lanes<I>(dy + i, n);
      if constexpr (!__is_same(F, NoActivation<I>)) d = d * F::slope(load_lanes<I>(a.pre.row<P>(r) + i, n));
      if (a.dpre.data != nullptr) {
        visit_float(a.dpre.dtype, [&]<class O>(TypeTag<O>) { store_lanes<I>(d, a.dpre.row<O>(r) + i, n); });
      }
      if (sums != nullptr) store_lanes<I>(load_lanes<I>(sums + i, n) + d, sums + i, n);
    });
  }
}

// dbias = sum over blocks, in order.
template <class I>
void sum_blocks(const BiasGradient& a, std::int64_t blocks) {
  const std::int64_t c = a.dy.cols;
  parallel_for(c, 256, [&](std::int64_t begin, std::int64_t end) {
    for_lanes<I>(end - begin, [&](std::int64_t i, std::int64_t n) {
      Vec<I> sum(0.0F);
      for (std::int64_t b = 0; b < blocks; ++b) sum += load_lanes<I>(a.scratch + b * c + begin + i, n);
      if (a.accumulate) sum += load_lanes<I>(a.dbias + begin + i, n);
      store_lanes<I>(sum, a.dbias + begin + i, n);
    });
  });
}

}  // namespace

template <class I>
void kernel(I, const BiasGradient& a) {
  const std::int64_t c = a.dy.cols, rows = row_count(a.dy);
  const auto for_blocks = [&](auto part) {
    parallel_for(rows, BiasGradient::kRowsPerBlock, [&](std::int64_t begin, std::int64_t end) {
      float* sums = a.dbias == nullptr ? nullptr : a.scratch + begin / BiasGradient::kRowsPerBlock * c;
      if (sums != nullptr) std::memset(sums, 0, static_cast<std::size_t>(c) * sizeof(float));
      part(begin, end, sums);
    });
  };
  visit_activation<I>(a.activation, [&]<class F>(TypeTag<F>) {
    visit_float(a.dy.dtype, [&]<class D>(TypeTag<D>) {
      visit_float(a.pre.dtype, [&]<class P>(TypeTag<P>) {
        for_blocks([&](std::int64_t begin, std::int64_t end, float* sums) { rows_of_gradient<I, F, D, P>(a, begin, end, sums); });
      });
    });
  });
  if (a.dbias != nullptr) sum_blocks<I>(a, (rows + BiasGradient::kRowsPerBlock - 1) / BiasGradient::kRowsPerBlock);
}
template void kernel(TWINLENS_ISA, const BiasGradient&);

}  // namespace twinlens
