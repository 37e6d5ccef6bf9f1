#include "twinlens/kernels/binary.h"

#include "kernels/cpu/vec/block.h"
#include "kernels/cpu/vec/strided.h"

namespace twinlens {
namespace {

template <class I>
struct BinaryFunctions {
  using V = Vec<I>;
  struct Add {
    TWINLENS_INLINE static V value(V a, V b) { return a + b; }
  };
  struct Sub {
    TWINLENS_INLINE static V value(V a, V b) { return a - b; }
  };
  struct Mul {
    TWINLENS_INLINE static V value(V a, V b) { return a * b; }
  };
  struct Div {
    TWINLENS_INLINE static V value(V a, V b) { return a / b; }
  };
  struct Maximum {
    TWINLENS_INLINE static V value(V a, V b) { return V::select(b.raw != b.raw, b, V::max(a, b)); }
  };
  struct Minimum {
    TWINLENS_INLINE static V value(V a, V b) { return V::select(b.raw != b.raw, b, V::min(a, b)); }
  };
  struct ShareAbove {
    TWINLENS_INLINE static V value(V a, V b) { return V::select(a.raw < b.raw, V(0.0F), V::select(a.raw == b.raw, V(0.5F), V(1.0F))); }
  };
  struct Share {
    TWINLENS_INLINE static V value(V a, V b) { return V::select(b.raw == 0.0F, V(0.0F), a * b); }
  };
};

using Body = void (*)(const float* a, const float* b, float* y, std::int64_t n, RowOutput out);

// Works on whole registers: blocks are padded.
template <class I, class F>
void block(const float* a, const float* b, float* y, std::int64_t n, RowOutput out) {
  for (std::int64_t i = 0; i < n; i += Vec<I>::kWidth) out.store<I>(F::value(Vec<I>::load(a + i), Vec<I>::load(b + i)), y + i);
}

template <class I>
Body body_of(BinaryFunction function) {
  using All = BinaryFunctions<I>;
  switch (function) {
    case BinaryFunction::add: return block<I, typename All::Add>;
    case BinaryFunction::sub: return block<I, typename All::Sub>;
    case BinaryFunction::mul: return block<I, typename All::Mul>;
    case BinaryFunction::div: return block<I, typename All::Div>;
    case BinaryFunction::maximum: return block<I, typename All::Maximum>;
    case BinaryFunction::minimum: return block<I, typename All::Minimum>;
    case BinaryFunction::share_above: return block<I, typename All::ShareAbove>;
    case BinaryFunction::share: return block<I, typename All::Share>;
  }
  return nullptr;
}

template <class I, class X, class Y>
void compute(const Binary& c, Body body) {
  const StridedPlan<2> plan = plan_strided<2>({&c.a, &c.b});
  const std::int64_t sa = plan.strides[0][plan.rank - 1], sb = plan.strides[1][plan.rank - 1];
  // (Of more dimensions than one, blocks of a row may begin anywhere.)
  const bool past = plan.rank == 1 && goes_past_caches(c.y, c.a, c.b);
  parallel_for(plan.count, kElementGrain, [&](std::int64_t begin, std::int64_t end) {
    ReadBlock<I> read_a, read_b;
    WriteBlock<I> write_y(past);
    for_runs(plan, begin, end, [&](std::int64_t position, const std::int64_t(&offsets)[2], std::int64_t count) {
      const X* a = static_cast<const X*>(c.a.data) + offsets[0];
      const X* b = static_cast<const X*>(c.b.data) + offsets[1];
      Y* y = c.y.as<Y>() + position;
      for (std::int64_t i = 0, n; i < count; i += n) {
        n = next_block<I>(count - i);
        body(read_a.read(a + i * sa, sa, n), read_b.read(b + i * sb, sb, n), write_y.target(y + i, n), n, write_y.template output<Y>(n));
        write_y.finish(y + i, n);
      }
    });
  });
}

// Elements are compared as floats or as 64-bit integers, which hold every element type exactly.
template <class I, class T>
TWINLENS_INLINE auto comparable(T x) {
  if constexpr (__is_class(T) && sizeof(T) == 2) {
    return Vec<I>::widen(x);
  } else if constexpr (__is_class(T)) {
    return static_cast<std::int64_t>(x.value != 0);
  } else if constexpr (__is_same(T, float)) {
    return x;
  } else {
    return static_cast<std::int64_t>(x);
  }
}

template <class I, class T>
void compare(const Compare& c) {
  const StridedPlan<2> plan = plan_strided<2>({&c.a, &c.b});
  const std::int64_t sa = plan.strides[0][plan.rank - 1], sb = plan.strides[1][plan.rank - 1];
  const bool less = c.comparison == Comparison::less;
  auto* y = c.y.as<std::uint8_t>();
  parallel_for(plan.count, kElementGrain, [&](std::int64_t begin, std::int64_t end) {
    for_runs(plan, begin, end, [&](std::int64_t position, const std::int64_t(&offsets)[2], std::int64_t n) {
      const T* a = static_cast<const T*>(c.a.data) + offsets[0];
      const T* b = static_cast<const T*>(c.b.data) + offsets[1];
      for (std::int64_t i = 0; i < n; ++i) {
        const auto va = comparable<I>(a[i * sa]), vb = comparable<I>(b[i * sb]);
        y[position + i] = less ? va < vb : va == vb;
      }
    });
  });
}

}  // namespace

template <class I>
void kernel(I, const Binary& c) {
  const Body body = body_of<I>(c.function);
  if (c.a.dtype == DType::f32) return compute<I, float, float>(c, body);
  if (c.y.dtype == DType::f32) return compute<I, bf16, float>(c, body);
  compute<I, bf16, bf16>(c, body);
}
template void kernel(TWINLENS_ISA, const Binary&);

template <class I>
void kernel(I, const Compare& c) {
  switch (c.a.dtype) {
    case DType::f32: return compare<I, float>(c);
    case DType::bf16: return compare<I, bf16>(c);
    case DType::f16: return compare<I, f16>(c);
    case DType::i64: return compare<I, std::int64_t>(c);
    case DType::i32: return compare<I, std::int32_t>(c);
    case DType::u8: return compare<I, std::uint8_t>(c);
    case DType::boolean: return compare<I, Boolean>(c);
  }
}
template void kernel(TWINLENS_ISA, const Compare&);

}  // namespace twinlens
