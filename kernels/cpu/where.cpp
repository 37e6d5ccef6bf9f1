#include "twinlens/kernels/where.h"

#include "kernels/cpu/vec/strided.h"

namespace twinlens {
namespace {

template <class Word>
void choose(const Choose& c) {
  const StridedPlan<3> plan = plan_strided<3>({&c.mask, &c.a, &c.b});
  const int inner = plan.rank - 1;
  const std::int64_t sm = plan.strides[0][inner], sa = plan.strides[1][inner], sb = plan.strides[2][inner];
  parallel_for(plan.count, kElementGrain, [&](std::int64_t begin, std::int64_t end) {
    for_runs(plan, begin, end, [&](std::int64_t position, const std::int64_t(&offsets)[3], std::int64_t n) {
      const auto* mask = static_cast<const std::uint8_t*>(c.mask.data) + offsets[0];
      const Word* a = static_cast<const Word*>(c.a.data) + offsets[1];
      const Word* b = static_cast<const Word*>(c.b.data) + offsets[2];
      Word* y = c.y.as<Word>() + position;
      // The usual layouts apart, so that they become vector code: one of the two is often a constant.
      if (sm == 1 && sa == 1 && sb == 1) {
        for (std::int64_t i = 0; i < n; ++i) y[i] = mask[i] != 0 ? a[i] : b[i];
      } else if (sm == 1 && sa == 0 && sb == 1) {
        const Word va = *a;
        for (std::int64_t i = 0; i < n; ++i) y[i] = mask[i] != 0 ? va : b[i];
      } else if (sm == 1 && sa == 1 && sb == 0) {
        const Word vb = *b;
        for (std::int64_t i = 0; i < n; ++i) y[i] = mask[i] != 0 ? a[i] : vb;
      } else {
        for (std::int64_t i = 0; i < n; ++i) y[i] = mask[i * sm] != 0 ? a[i * sa] : b[i * sb];
      }
    });
  });
}

}  // namespace

template <class I>
void kernel(I, const Choose& c) {
  switch (size_of(c.y.dtype)) {
    case 1: return choose<std::uint8_t>(c);
    case 2: return choose<std::uint16_t>(c);
    case 4: return choose<std::uint32_t>(c);
    default: return choose<std::uint64_t>(c);
  }
}
template void kernel(TWINLENS_ISA, const Choose&);

}  // namespace twinlens
