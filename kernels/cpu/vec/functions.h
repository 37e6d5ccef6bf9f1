#pragma once
// The elementwise functions of one argument: value(x) and slope, the derivative. `slope` takes x, or y = value(x) where its
// parameter is called y. Shared by the unary kernels and by the kernels that fuse an activation into their last step.

#include "kernels/cpu/vec/rough_math.h"

namespace twinlens {

template <class M>
struct Functions {
  using V = typename M::V;
  using Int = typename V::Int;

  struct Abs {
    TWINLENS_INLINE static V value(V x) { return V::abs(x); }
    // the sign; 0 at 0
    TWINLENS_INLINE static V slope(V x) { return V::select(x.raw > 0.0F, V(1.0F), V::select(x.raw < 0.0F, V(-1.0F), x)); }
  };
  struct Exp {
    TWINLENS_INLINE static V value(V x) { return M::exp(x); }
    TWINLENS_INLINE static V slope(V y) { return y; }
  };
  struct Log {
    TWINLENS_INLINE static V value(V x) { return M::log(x); }
    TWINLENS_INLINE static V slope(V x) { return V(1.0F) / x; }
  };
  struct Sqrt {
    TWINLENS_INLINE static V value(V x) { return V::sqrt(x); }
    TWINLENS_INLINE static V slope(V y) { return V(0.5F) / y; }
  };
  struct Square {
    TWINLENS_INLINE static V value(V x) { return x * x; }
    TWINLENS_INLINE static V slope(V x) { return x + x; }
  };
  struct Tanh {
    TWINLENS_INLINE static V value(V x) { return M::tanh(x); }
    TWINLENS_INLINE static V slope(V y) { return (V(1.0F) - y) * (V(1.0F) + y); }
  };
  struct Sigmoid {
    TWINLENS_INLINE static V value(V x) { return M::sigmoid(x); }
    TWINLENS_INLINE static V slope(V y) { return y * (V(1.0F) - y); }
  };
  struct LogSigmoid {
    TWINLENS_INLINE static V value(V x) { return V::min(x, V(0.0F)) - M::log1p_exp_neg_abs(x); }
    TWINLENS_INLINE static V slope(V x) { return M::sigmoid(-x); }
  };
  struct Relu {
    using Gate = void;  // its gradient is no product: gradient.h
    TWINLENS_INLINE static V value(V x) { return V::max(x, V(0.0F)); }
  };

  struct Silu {
    TWINLENS_INLINE static V value(V x) { return M::gated(x, 1.0F); }
    TWINLENS_INLINE static V slope(V x) { return M::gated_slope(x, 1.0F); }
  };
  struct QuickGelu {  // OpenAI's
    TWINLENS_INLINE static V value(V x) { return M::gated(x, 1.702F); }
    TWINLENS_INLINE static V slope(V x) { return M::gated_slope(x, 1.702F); }
  };

  // x Phi(x), Phi the normal distribution; slope Phi + x phi. Both from the tail Q(|x|), which leaves no cancellation:
  // x Phi(x) = max(x, 0) - |x| Q, and the slope is Q - |x| phi below 0 and what that leaves of 1 above.
  struct Gelu {
    TWINLENS_INLINE static V value(V x) { return V::max(x, V(0.0F)) - M::gelu_loss(V::abs(x)); }
    TWINLENS_INLINE static V slope(V x) {
      const V loss = M::gelu_slope_loss(V::abs(x));
      return V::select(x.raw < 0.0F, loss, V(1.0F) - loss);
    }
  };
  // x (1 + tanh u) / 2 with u = sqrt(2 / pi) (x + 0.044715 x^3), computed as x sigmoid(2u): no cancellation for negative x.
  struct GeluTanh {
    static constexpr float kScale = 1.5957691216057308F;  // 2 sqrt(2 / pi)
    static constexpr float kCubic = 0.044715F;
    TWINLENS_INLINE static V value(V x) {
      const V c = V::min(V::max(x, V(-20.0F)), V(20.0F));  // sigmoid(2u) is 0 or 1 there, and x^3 does not overflow
      return x * M::sigmoid(V(kScale) * c * V::fma(V(kCubic), c * c, V(1.0F)));
    }
    TWINLENS_INLINE static V slope(V x) {
      const V c = V::min(V::max(x, V(-20.0F)), V(20.0F));
      const V u2 = V(kScale) * c * V::fma(V(kCubic), c * c, V(1.0F));
      const V du2 = V(kScale) * V::fma(V(3.0F * kCubic), c * c, V(1.0F));
      const auto [s, rest] = M::sigmoid_and_rest(u2);
      return V::fma(c * du2, s * rest, s);
    }
  };
};

template <class S, class T>
using FunctionsFor = Functions<MathFor<S, T>>;

// F of x, or of each part of x, where F is for one register and x is several. (One helper for both, given F by a lambda, was tried: gcc 12
// does not inline it, and GELU takes half as long again with AVX2.)
template <class F, class V>
TWINLENS_INLINE V value_of(V x) {
  if constexpr (requires { F::value(x); }) {
    return F::value(x);
  } else {
    return each_part([](typename V::Part part) { return F::value(part).raw; }, x.raw);
  }
}
template <class F, class V>
TWINLENS_INLINE V slope_of(V x) {
  if constexpr (requires { F::slope(x); }) {
    return F::slope(x);
  } else {
    return each_part([](typename V::Part part) { return F::slope(part).raw; }, x.raw);
  }
}

}  // namespace twinlens
