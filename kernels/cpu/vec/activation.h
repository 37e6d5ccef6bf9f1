#pragma once
// From an Activation to its functions.

#include "kernels/cpu/vec/functions.h"

#include "twinlens/kernels/activation.h"

namespace twinlens {

template <class I>
struct NoActivation {
  TWINLENS_INLINE static Vec<I> value(Vec<I> x) { return x; }
  TWINLENS_INLINE static Vec<I> slope(Vec<I>) { return Vec<I>(1.0F); }
};

// Calls f(TypeTag<F>{}) with F::value and F::slope; slope may be given the argument of the activation for all of them (relu's slope
// is stated in terms of y, which has the sign of x).
template <class I, class F>
TWINLENS_INLINE void visit_activation(Activation activation, F&& f) {
  using All = Functions<I>;
  switch (activation) {
    case Activation::none: return f(TypeTag<NoActivation<I>>{});
    case Activation::relu: return f(TypeTag<typename All::Relu>{});
    case Activation::gelu: return f(TypeTag<typename All::Gelu>{});
    case Activation::gelu_tanh: return f(TypeTag<typename All::GeluTanh>{});
    case Activation::quick_gelu: return f(TypeTag<typename All::QuickGelu>{});
    case Activation::silu: return f(TypeTag<typename All::Silu>{});
  }
}

}  // namespace twinlens
