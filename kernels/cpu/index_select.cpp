#include "twinlens/kernels/index_select.h"

#include "kernels/cpu/vec/vec.h"

#include "twinlens/kernels/parallel.h"

namespace twinlens {
namespace {

// Sums are cut by outer index and by columns, never by i: every element of y sees its addends in the order of i.
constexpr std::int64_t kColumns = 64;

template <class I, class X>
TWINLENS_INLINE void add_columns(const ScatterAdd& a, std::int64_t outer, std::int64_t column) {
  const std::int64_t columns = a.inner - column < kColumns ? a.inner - column : kColumns;
  for (std::int64_t i = 0; i < a.count; ++i) {
    const X* from = a.x.as<X>() + (outer * a.count + i) * a.inner + column;
    float* to = a.y + (outer * a.size + a.ids[i]) * a.inner + column;
    for_lanes<I>(columns,
                 [&](std::int64_t c, std::int64_t n) { store_lanes<I>(load_lanes<I>(to + c, n) + load_lanes<I>(from + c, n), to + c, n); });
  }
}

}  // namespace

template <class I>
void kernel(I, const IndexSelect& a) {
  const std::int64_t bytes = a.inner * size_of(a.x.dtype);
  const char* x = a.x.as<char>();
  char* y = a.y.as<char>();
  if (bytes == 0) return;
  parallel_for(a.outer * a.count, 65536 / bytes + 1, [&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t row = begin; row < end; ++row) {
      const std::int64_t outer = row / a.count, i = row % a.count;
      std::memcpy(y + row * bytes, x + (outer * a.size + a.ids[i]) * bytes, static_cast<std::size_t>(bytes));
    }
  });
}
template void kernel(TWINLENS_ISA, const IndexSelect&);

template <class I>
void kernel(I, const ScatterAdd& a) {
  const std::int64_t cuts = (a.inner + kColumns - 1) / kColumns;
  visit_float(a.x.dtype, [&]<class X>(TypeTag<X>) {
    parallel_for(a.outer * cuts, kElementGrain / (a.count * kColumns + 1) + 1, [&](std::int64_t begin, std::int64_t end) {
      for (std::int64_t cut = begin; cut < end; ++cut) add_columns<I, X>(a, cut / cuts, cut % cuts * kColumns);
    });
  });
}
template void kernel(TWINLENS_ISA, const ScatterAdd&);

}  // namespace twinlens
