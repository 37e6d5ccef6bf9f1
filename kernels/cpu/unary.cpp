#include "twinlens/kernels/unary.h"

#include "kernels/cpu/vec/gradient.h"
#include "kernels/cpu/vec/past_caches.h"
#include "kernels/cpu/vec/prefetch.h"

#include "twinlens/kernels/parallel.h"

namespace twinlens {
namespace {

// A body works on whole registers of a set, SideBySide<I, T>::Set: n is a multiple of their width. What comes next is asked for while it
// computes, where the processor itself would look no further than the instructions that it holds.
template <class T>
using Forward = void (*)(const UnaryForward& a, const T* x, T* y, std::int64_t n, RowOutput out);
template <class T>
using Backward = void (*)(const UnaryBackward& a, const T* saved, const T* dy, T* dx, std::int64_t n, RowOutput out);

// What comes next of an output and of inputs.
template <class I, class T, class... In>
TWINLENS_INLINE void ask_ahead_of(const RowOutput& out, const T* y, const In*... in) {
  ask_ahead<I>(in...);
  if (!out.past_caches) ask_ahead<I>(y);
}

template <class I, class F, class T>
void forward_body(const UnaryForward&, const T* x, T* y, std::int64_t n, RowOutput out) {
  for (std::int64_t i = 0; i < n; i += Vec<I>::kWidth) {
    ask_ahead_of<I>(out, y + i, x + i);
    out.store<I>(value_of<F>(Vec<I>::load(x + i)), y + i);
  }
}

template <class I, class T>
void clamp_body(const UnaryForward& a, const T* x, T* y, std::int64_t n, RowOutput out) {
  using V = Vec<I>;
  for (std::int64_t i = 0; i < n; i += V::kWidth) {
    ask_ahead_of<I>(out, y + i, x + i);
    out.store<I>(V::min(V::max(V::load(x + i), V(a.low)), V(a.high)), y + i);
  }
}

template <class I, class F, class T>
void backward_body(const UnaryBackward&, const T* saved, const T* dy, T* dx, std::int64_t n, RowOutput out) {
  for (std::int64_t i = 0; i < n; i += Vec<I>::kWidth) {
    ask_ahead_of<I>(out, dx + i, saved + i, dy + i);
    out.store<I>(times_slope<I, F>(Vec<I>::load(dy + i), Vec<I>::load(saved + i)), dx + i);
  }
}

template <class I, class T>
void clamp_backward_body(const UnaryBackward& a, const T* x, const T* dy, T* dx, std::int64_t n, RowOutput out) {
  using V = Vec<I>;
  for (std::int64_t i = 0; i < n; i += V::kWidth) {
    ask_ahead_of<I>(out, dx + i, x + i, dy + i);
    const V v = V::load(x + i);
    out.store<I>(V::select((v.raw >= a.low) & (v.raw <= a.high), V::load(dy + i), V(0.0F)), dx + i);
  }
}

// Calls body(in ..., out, n) for the whole registers of a run of elements, and for those behind them in buffers of one register.
template <class I, class T, class Body, class... In>
TWINLENS_INLINE void by_registers(std::int64_t n, const RowOutput& how, Body&& body, T* out, const In*... in) {
  constexpr std::int64_t w = Vec<I>::kWidth;
  const std::int64_t whole = n / w * w, rest = n - whole;
  if (whole > 0) body(in..., out, whole, how);
  if (rest > 0) {
    alignas(64) T last[w];
    const auto padded = [&](const T* from) {
      struct {
        alignas(64) T lanes[w];
      } r{};
      std::memcpy(static_cast<void*>(r.lanes), from + whole, static_cast<std::size_t>(rest) * sizeof(T));
      return r;
    };
    body(padded(in).lanes..., last, w, RowOutput{false});
    std::memcpy(static_cast<void*>(out + whole), last, static_cast<std::size_t>(rest) * sizeof(T));
  }
  how.end();
}

// Calls f(TypeTag<Function>) with the function of `All`, a Functions; clamp, which has parameters, is handled by its callers.
template <class All, class F>
TWINLENS_INLINE void visit_function(UnaryFunction function, F&& f) {
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
  visit_float(a.x.dtype, [&]<class T>(TypeTag<T>) {
    using J = typename SideBySide<I, T>::Set;
    Forward<T> body = clamp_body<J, T>;
    visit_function<FunctionsFor<J, T>>(a.function, [&]<class F>(TypeTag<F>) { body = forward_body<J, F, T>; });
    const RowOutput out{goes_past_caches(a.y, a.x)};
    parallel_for(a.y.count, element_grain(a.y.count), [&](std::int64_t begin, std::int64_t end) {
      const auto run = [&](const T* x, T* y, std::int64_t n, const RowOutput& how) { body(a, x, y, n, how); };
      by_registers<J>(end - begin, out, run, a.y.as<T>() + begin, a.x.as<T>() + begin);
    });
  });
}
template void kernel(TWINLENS_ISA, const UnaryForward&);

template <class I>
void kernel(I, const UnaryBackward& a) {
  visit_float(a.saved.dtype, [&]<class T>(TypeTag<T>) {
    using J = typename SideBySide<I, T>::Set;
    Backward<T> body = clamp_backward_body<J, T>;
    visit_function<FunctionsFor<J, T>>(a.function, [&]<class F>(TypeTag<F>) { body = backward_body<J, F, T>; });
    const RowOutput out{goes_past_caches(a.dx, a.saved, a.dy)};
    parallel_for(a.dx.count, element_grain(a.dx.count), [&](std::int64_t begin, std::int64_t end) {
      const auto run = [&](const T* saved, const T* dy, T* dx, std::int64_t n, const RowOutput& how) { body(a, saved, dy, dx, n, how); };
      by_registers<J>(end - begin, out, run, a.dx.as<T>() + begin, a.saved.as<T>() + begin, a.dy.as<T>() + begin);
    });
  });
}
template void kernel(TWINLENS_ISA, const UnaryBackward&);

}  // namespace twinlens
