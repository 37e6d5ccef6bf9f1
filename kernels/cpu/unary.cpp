#include "twinlens/kernels/unary.h"

#include "kernels/cpu/vec/block.h"
#include "kernels/cpu/vec/functions.h"

#include "twinlens/kernels/parallel.h"

namespace twinlens {
namespace {

// A body works on whole registers of floats: `n` is rounded up by it, blocks are padded.
using Forward = void (*)(const UnaryForward& a, const float* x, float* y, std::int64_t n, NextBlock next, RowOutput out);
using Backward = void (*)(const UnaryBackward& a, const float* saved, const float* dy, float* dx, std::int64_t n, NextBlock next,
                          RowOutput out);

template <class I, class F>
void forward_block(const UnaryForward&, const float* x, float* y, std::int64_t n, NextBlock next, RowOutput out) {
  for (std::int64_t i = 0; i < n; i += Vec<I>::kWidth) {
    next.ask(i);
    out.store<I>(F::value(Vec<I>::load(x + i)), y + i);
  }
}

template <class I>
void clamp_block(const UnaryForward& a, const float* x, float* y, std::int64_t n, NextBlock next, RowOutput out) {
  using V = Vec<I>;
  for (std::int64_t i = 0; i < n; i += V::kWidth) {
    next.ask(i);
    out.store<I>(V::min(V::max(V::load(x + i), V(a.low)), V(a.high)), y + i);
  }
}

template <class I, class F>
void backward_block(const UnaryBackward&, const float* saved, const float* dy, float* dx, std::int64_t n, NextBlock next, RowOutput out) {
  for (std::int64_t i = 0; i < n; i += Vec<I>::kWidth) {
    next.ask(i);
    out.store<I>(Vec<I>::load(dy + i) * F::slope(Vec<I>::load(saved + i)), dx + i);
  }
}

template <class I>
void clamp_backward_block(const UnaryBackward& a, const float* x, const float* dy, float* dx, std::int64_t n, NextBlock next,
                          RowOutput out) {
  using V = Vec<I>;
  for (std::int64_t i = 0; i < n; i += V::kWidth) {
    next.ask(i);
    const V v = V::load(x + i);
    out.store<I>(V::select((v.raw >= a.low) & (v.raw <= a.high), V::load(dy + i), V(0.0F)), dx + i);
  }
}

// Calls f(TypeTag<Function>) with the function of Functions<I>; clamp, which has parameters, is handled by its callers.
template <class I, class F>
TWINLENS_INLINE void visit_function(UnaryFunction function, F&& f) {
  using All = Functions<I>;
  switch (function) {
    case UnaryFunction::abs: return f(TypeTag<typename All::Abs>{});
    case UnaryFunction::exp: return f(TypeTag<typename All::Exp>{});
    case UnaryFunction::log: return f(TypeTag<typename All::Log>{});
    case UnaryFunction::sqrt: return f(TypeTag<typename All::Sqrt>{});
    case UnaryFunction::square: return f(TypeTag<typename All::Square>{});
    case UnaryFunction::tanh: return f(TypeTag<typename All::Tanh>{});
    case UnaryFunction::sigmoid: return f(TypeTag<typename All::Sigmoid>{});
    case UnaryFunction::log_sigmoid: return f(TypeTag<typename All::LogSigmoid>{});
    case UnaryFunction::silu: return f(TypeTag<typename All::Silu>{});
    case UnaryFunction::relu: return f(TypeTag<typename All::Relu>{});
    case UnaryFunction::gelu: return f(TypeTag<typename All::Gelu>{});
    case UnaryFunction::gelu_tanh: return f(TypeTag<typename All::GeluTanh>{});
    case UnaryFunction::quick_gelu: return f(TypeTag<typename All::QuickGelu>{});
    case UnaryFunction::clamp: return;
  }
}

}  // namespace

template <class I>
void kernel(I, const UnaryForward& a) {
  Forward body = clamp_block<I>;
  visit_function<I>(a.function, [&]<class F>(TypeTag<F>) { body = forward_block<I, F>; });
  visit_float(a.x.dtype, [&]<class T>(TypeTag<T>) {
    const bool past = goes_past_caches(a.y, a.x);
    parallel_for(a.y.count, kElementGrain, [&](std::int64_t begin, std::int64_t end) {
      ReadBlock<I> x;
      WriteBlock<I> y(past);
      for (std::int64_t i = begin, n; i < end; i += n) {
        n = next_block<I>(end - i);
        const T* const from = a.x.as<T>() + i;
        T* const to = a.y.as<T>() + i;
        body(a, x.read(from, 1, n), y.target(to, n), n, NextBlock{{from, past ? nullptr : to}, sizeof(T)}, y.template output<T>(n));
        y.finish(to, n);
      }
    });
  });
}
template void kernel(TWINLENS_ISA, const UnaryForward&);

template <class I>
void kernel(I, const UnaryBackward& a) {
  Backward body = clamp_backward_block<I>;
  visit_function<I>(a.function, [&]<class F>(TypeTag<F>) { body = backward_block<I, F>; });
  visit_float(a.saved.dtype, [&]<class T>(TypeTag<T>) {
    const bool past = goes_past_caches(a.dx, a.saved, a.dy);
    parallel_for(a.dx.count, kElementGrain, [&](std::int64_t begin, std::int64_t end) {
      ReadBlock<I> saved, dy;
      WriteBlock<I> dx(past);
      for (std::int64_t i = begin, n; i < end; i += n) {
        n = next_block<I>(end - i);
        const T *const at = a.saved.as<T>() + i, *const up = a.dy.as<T>() + i;
        T* const to = a.dx.as<T>() + i;
        body(a, saved.read(at, 1, n), dy.read(up, 1, n), dx.target(to, n), n, NextBlock{{at, up, past ? nullptr : to}, sizeof(T)},
             dx.template output<T>(n));
        dx.finish(to, n);
      }
    });
  });
}
template void kernel(TWINLENS_ISA, const UnaryBackward&);

}  // namespace twinlens
