#include "twinlens/kernels/copy.h"

#include "kernels/cpu/copy_plan.h"
#include "kernels/cpu/vec/vec.h"

#include "twinlens/kernels/parallel.h"

namespace twinlens {
namespace {

template <class F>
TWINLENS_INLINE void visit_any(DType t, F&& f) {
  switch (t) {
    case DType::f32: return f(TypeTag<float>{});
    case DType::bf16: return f(TypeTag<bf16>{});
    case DType::f16: return f(TypeTag<f16>{});
    case DType::i64: return f(TypeTag<std::int64_t>{});
    case DType::i32: return f(TypeTag<std::int32_t>{});
    case DType::u8: return f(TypeTag<std::uint8_t>{});
    case DType::boolean: return f(TypeTag<Boolean>{});
  }
}

// Conversions other than the dense float ones go through a block of doubles, which hold every i32, u8, bool and float exactly (and i64
// up to 2^53): 7 readers and 7 writers instead of 49 pairs.
constexpr std::int64_t kDoublesAtOnce = 256;

template <class I, class T>
void read_block(const void* base, std::int64_t offset, std::int64_t stride, std::int64_t n, double* out) {
  const T* x = static_cast<const T*>(base) + offset;
  for (std::int64_t i = 0; i < n; ++i) {
    if constexpr (sizeof(T) == 2) {
      out[i] = static_cast<double>(Vec<I>::widen(x[i * stride]));
    } else if constexpr (__is_class(T)) {
      out[i] = x[i * stride].value != 0 ? 1.0 : 0.0;
    } else {
      out[i] = static_cast<double>(x[i * stride]);
    }
  }
}

template <class I, class T>
TWINLENS_INLINE T element_of(double x) {
  if constexpr (sizeof(T) == 2) {
    return Vec<I>::template narrow<T>(static_cast<float>(x));
  } else if constexpr (__is_class(T)) {
    return T{static_cast<std::uint8_t>(x != 0.0 ? 1 : 0)};
  } else if constexpr (__is_same(T, float)) {
    return static_cast<float>(x);
  } else {
    return to_integer<T>(x);
  }
}

template <class I, class T>
void write_block(void* base, std::int64_t offset, std::int64_t stride, std::int64_t n, const double* in) {
  T* y = static_cast<T*>(base) + offset;
  for (std::int64_t i = 0; i < n; ++i) y[i * stride] = element_of<I, T>(in[i]);
}

// Rows of the same type are moved as raw words.
template <class Word>
TWINLENS_INLINE void move_row(const Word* x, std::int64_t sx, Word* y, std::int64_t sy, std::int64_t n) {
  if (sx == 1 && sy == 1) {
    std::memcpy(y, x, static_cast<std::size_t>(n) * sizeof(Word));
  } else {
    for (std::int64_t i = 0; i < n; ++i) y[i * sy] = x[i * sx];
  }
}

// Calls row(x offset, y offset, begin, count) for pieces of the innermost dimension of the plan.
template <class Row>
TWINLENS_INLINE void for_rows(const CopyPlan& p, Row&& row) {
  const int inner = p.rank - 1;
  const std::int64_t n = p.shape[inner];
  std::int64_t outer = 1;
  for (int d = 0; d < inner; ++d) outer *= p.shape[d];
  if (n == 0 || outer == 0) return;
  const auto offsets = [&](std::int64_t index, std::int64_t& ox, std::int64_t& oy) {
    ox = oy = 0;
    for (int d = inner - 1; d >= 0; --d) {
      const std::int64_t i = index % p.shape[d];
      index /= p.shape[d];
      ox += i * p.sx[d];
      oy += i * p.sy[d];
    }
  };
  if (n >= 2 * kElementGrain) {
    for (std::int64_t r = 0; r < outer; ++r) {
      std::int64_t ox, oy;
      offsets(r, ox, oy);
      parallel_for(n, kElementGrain,
                   [&](std::int64_t begin, std::int64_t end) { row(ox + begin * p.sx[inner], oy + begin * p.sy[inner], end - begin); });
    }
    return;
  }
  parallel_for(outer, kElementGrain / n + 1, [&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t r = begin; r < end; ++r) {
      std::int64_t ox, oy;
      offsets(r, ox, oy);
      row(ox, oy, n);
    }
  });
}

template <class I>
void convert(const Copy& a, const CopyPlan& p) {
  void (*read)(const void*, std::int64_t, std::int64_t, std::int64_t, double*) = nullptr;
  void (*write)(void*, std::int64_t, std::int64_t, std::int64_t, const double*) = nullptr;
  visit_any(a.x.dtype, [&]<class T>(TypeTag<T>) { read = read_block<I, T>; });
  visit_any(a.y.dtype, [&]<class T>(TypeTag<T>) { write = write_block<I, T>; });
  const std::int64_t sx = p.sx[p.rank - 1], sy = p.sy[p.rank - 1];
  for_rows(p, [&](std::int64_t ox, std::int64_t oy, std::int64_t n) {
    double block[kDoublesAtOnce];
    for (std::int64_t i = 0; i < n; i += kDoublesAtOnce) {
      const std::int64_t count = n - i < kDoublesAtOnce ? n - i : kDoublesAtOnce;
      read(a.x.data, ox + i * sx, sx, count, block);
      write(a.y.data, oy + i * sy, sy, count, block);
    }
  });
}

// The conversions that sit on the training path: dense, float to float, a register at a time.
template <class I, class From, class To>
void convert_dense(const Copy& a, std::int64_t n) {
  const auto* x = static_cast<const From*>(a.x.data);
  auto* y = static_cast<To*>(a.y.data);
  parallel_for(n, kElementGrain, [&](std::int64_t begin, std::int64_t end) {
    for_lanes<I>(end - begin,
                 [&](std::int64_t i, std::int64_t lanes) { store_lanes<I>(load_lanes<I>(x + begin + i, lanes), y + begin + i, lanes); });
  });
}

template <class Word>
void move(const Copy& a, const CopyPlan& p) {
  const auto* x = static_cast<const Word*>(a.x.data);
  auto* y = static_cast<Word*>(a.y.data);
  const std::int64_t sx = p.sx[p.rank - 1], sy = p.sy[p.rank - 1];
  for_rows(p, [&](std::int64_t ox, std::int64_t oy, std::int64_t n) { move_row(x + ox, sx, y + oy, sy, n); });
}

}  // namespace

template <class I>
void kernel(I, const Copy& a) {
  const CopyPlan p = copy_plan(a);
  if (a.x.dtype == a.y.dtype) {
    switch (size_of(a.x.dtype)) {
      case 1: return move<std::uint8_t>(a, p);
      case 2: return move<std::uint16_t>(a, p);
      case 4: return move<std::uint32_t>(a, p);
      default: return move<std::uint64_t>(a, p);
    }
  }
  const bool dense = is_dense(p);
  if (dense && a.x.dtype == DType::f32 && a.y.dtype == DType::bf16) return convert_dense<I, float, bf16>(a, p.shape[0]);
  if (dense && a.x.dtype == DType::bf16 && a.y.dtype == DType::f32) return convert_dense<I, bf16, float>(a, p.shape[0]);
  convert<I>(a, p);
}
template void kernel(TWINLENS_ISA, const Copy&);

template <class I>
void kernel(I, const Fill& a) {
  visit_any(a.y.dtype, [&]<class T>(TypeTag<T>) {
    const T value = element_of<I, T>(a.value);
    T* y = a.y.as<T>();
    parallel_for(a.y.count, 65536, [&](std::int64_t begin, std::int64_t end) {
      if (a.value == 0.0 && !__builtin_signbit(a.value)) {
        std::memset(static_cast<void*>(y + begin), 0, static_cast<std::size_t>(end - begin) * sizeof(T));
      } else {
        for (std::int64_t i = begin; i < end; ++i) y[i] = value;
      }
    });
  });
}
template void kernel(TWINLENS_ISA, const Fill&);

}  // namespace twinlens
