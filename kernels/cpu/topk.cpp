#include "twinlens/kernels/topk.h"

#include "kernels/cpu/vec/vec.h"

#include "twinlens/kernels/parallel.h"

namespace twinlens {
namespace {

// k candidates as a heap whose root ranks last.
template <class I, class T>
struct Heap {
  T* values;
  std::int64_t* indices;
  std::int64_t k;

  TWINLENS_INLINE float value(std::int64_t i) const { return Vec<I>::widen(values[i]); }

  // Whether (a, ia) stands before (b, ib) in the result.
  TWINLENS_INLINE static bool before(float a, std::int64_t ia, float b, std::int64_t ib) {
    const bool a_nan = a != a, b_nan = b != b;
    if (a_nan != b_nan) return a_nan;
    return a == b || a_nan ? ia < ib : a > b;
  }

  // Lets the element at `i` sink to its place among the first `size`.
  TWINLENS_INLINE void sink(std::int64_t i, std::int64_t size) {
    const T moving = values[i];
    const std::int64_t moving_index = indices[i];
    const float v = Vec<I>::widen(moving);
    for (std::int64_t child = 2 * i + 1; child < size; child = 2 * i + 1) {
      if (child + 1 < size && before(value(child), indices[child], value(child + 1), indices[child + 1])) ++child;
      if (!before(v, moving_index, value(child), indices[child])) break;
      values[i] = values[child];
      indices[i] = indices[child];
      i = child;
    }
    values[i] = moving;
    indices[i] = moving_index;
  }

  // Takes the best of the row; the heap then holds them best first.
  TWINLENS_INLINE void select(const T* x, std::int64_t columns) {
    for (std::int64_t i = 0; i < k; ++i) {
      values[i] = x[i];
      indices[i] = i;
    }
    for (std::int64_t i = k / 2 - 1; i >= 0; --i) sink(i, k);
    constexpr std::int64_t kBlock = 256;
    for (std::int64_t begin = k; begin < columns; begin += kBlock) {
      const std::int64_t count = columns - begin < kBlock ? columns - begin : kBlock;
      if (may_enter(x + begin, count)) enter(x, begin, begin + count);
    }
    for (std::int64_t last = k - 1; last > 0; --last) {
      const T worst = values[0];
      const std::int64_t worst_index = indices[0];
      values[0] = values[last];
      indices[0] = indices[last];
      values[last] = worst;
      indices[last] = worst_index;
      sink(0, last);
    }
  }

 private:
  // Whether any of x[0, n) is above the root or NaN. (An equal one has a higher index and stays out.)
  TWINLENS_INLINE bool may_enter(const T* x, std::int64_t n) const {
    using V = Vec<I>;
    V found(0.0F);
    const V root(value(0));
    for_lanes<I>(n, [&](std::int64_t i, std::int64_t lanes) {
      const V v = load_lanes<I>(x + i, lanes, root.raw[0]);
      found = V::select(v.raw <= root.raw, found, V(1.0F));
    });
    return found.max() > 0.0F;
  }

  TWINLENS_INLINE void enter(const T* x, std::int64_t begin, std::int64_t end) {
    float root = value(0);
    for (std::int64_t i = begin; i < end; ++i) {
      const float v = Vec<I>::widen(x[i]);
      if (v <= root || !before(v, i, root, indices[0])) continue;
      values[0] = x[i];
      indices[0] = i;
      sink(0, k);
      root = value(0);
    }
  }
};

template <class F>
TWINLENS_INLINE void for_rows(const ConstRows& x, F&& f) {
  parallel_for(row_count(x), row_grain(row_count(x), x.cols), [&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t r = begin; r < end; ++r) f(r);
  });
}

}  // namespace

template <class I>
void kernel(I, const TopKForward& a) {
  const std::int64_t k = a.values.cols;
  if (k == 0) return;
  visit_float(a.x.dtype, [&]<class T>(TypeTag<T>) {
    for_rows(a.x, [&](std::int64_t r) { Heap<I, T>{a.values.row<T>(r), a.indices + r * k, k}.select(a.x.row<T>(r), a.x.cols); });
  });
}
template void kernel(TWINLENS_ISA, const TopKForward&);

template <class I>
void kernel(I, const TopKBackward& a) {
  const std::int64_t k = a.dy.cols;
  visit_float(a.dy.dtype, [&]<class T>(TypeTag<T>) {
    parallel_for(row_count(a.dy), 65536 / (a.dx.cols + 1) + 1, [&](std::int64_t begin, std::int64_t end) {
      for (std::int64_t r = begin; r < end; ++r) {
        T* dx = a.dx.row<T>(r);
        std::memset(dx, 0, static_cast<std::size_t>(a.dx.cols) * sizeof(T));
        for (std::int64_t j = 0; j < k; ++j) dx[a.indices[r * k + j]] = a.dy.row<T>(r)[j];
      }
    });
  });
}
template void kernel(TWINLENS_ISA, const TopKBackward&);

template <class I>
void kernel(I, const ArgMax& a) {
  if (a.x.dtype == DType::i64) {
    for_rows(a.x, [&](std::int64_t r) {
      const std::int64_t* x = a.x.row<std::int64_t>(r);
      std::int64_t best = 0;
      for (std::int64_t i = 1; i < a.x.cols; ++i) best = x[i] > x[best] ? i : best;
      a.indices[r] = best;
    });
    return;
  }
  visit_float(a.x.dtype, [&]<class T>(TypeTag<T>) {
    for_rows(a.x, [&](std::int64_t r) {
      T value;
      Heap<I, T>{&value, a.indices + r, 1}.select(a.x.row<T>(r), a.x.cols);
    });
  });
}
template void kernel(TWINLENS_ISA, const ArgMax&);

}  // namespace twinlens
