#pragma once
// From an Activation to its functions.

#include "kernels/cpu/vec/functions.h"

#include "twinlens/kernels/activation.h"

namespace twinlens {

struct NoActivation {
  TWINLENS_INLINE static auto value(auto x) { return x; }
  TWINLENS_INLINE static auto slope(auto x) { return decltype(x)(1.0F); }
};

// Calls f(TypeTag<F>{}) with F::value and F::slope; slope may be given the argument of the activation for all of them (relu's slope
// is stated in terms of y, which has the sign of x).
template <class All, class F>
TWINLENS_INLINE void visit_activation(Activation activation, F&& f) {
  switch (activation) {
    case Activation::none: return f(TypeTag<NoActivation>{});
    case Activation::relu: return f(TypeTag<typename All::Relu>{});
    case Activation::gelu: return f(TypeTag<typename All::Gelu>{});
    case Activation::gelu_tanh: return f(TypeTag<typename All::GeluTanh>{});
    case Activation::quick_gelu: return f(TypeTag<typename All::QuickGelu>{});
    case Activation::silu: return f(TypeTag<typename All::Silu>{});
  }
}

// Calls f(TypeTag<S>{}, TypeTag<F>{}, i) along `count` elements in f32 that are to be stored as T, whole registers of I: S is what is taken
// at a time from element i on.
template <class I, class T, class F>
TWINLENS_INLINE void along_registers(Activation activation, std::int64_t count, F&& f) {
  using J = typename SideBySide<I, float>::Set;
  std::int64_t i = 0;
  visit_activation<FunctionsFor<J, T>>(activation, [&]<class G>(TypeTag<G> functions) {
    for (; i + J::kWidth <= count; i += J::kWidth) f(TypeTag<J>{}, functions, i);
  });
  if constexpr (!__is_same(I, J)) {
    if (i == count) return;
    visit_activation<FunctionsFor<I, T>>(activation, [&]<class G>(TypeTag<G> functions) {
      for (; i < count; i += I::kWidth) f(TypeTag<I>{}, functions, i);
    });
  }
}

}  // namespace twinlens
