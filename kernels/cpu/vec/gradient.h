#pragma once
// How the gradient of an elementwise function goes on: dx = dy f'(x).

#include "kernels/cpu/vec/functions.h"

namespace twinlens {

// relu is a gate rather than a factor: where it is closed not even infinity and NaN pass, and NaN has it open, as in PyTorch. `saved` is
// what F::slope takes, or for relu the argument, which has the sign of its result.
template <class I, class F>
TWINLENS_INLINE Vec<I> times_slope(Vec<I> dy, Vec<I> saved) {
  using V = Vec<I>;
  if constexpr (requires { typename F::Gate; }) {
    return V::select(saved.raw <= 0.0F, V(0.0F), dy);
  } else {
    return dy * slope_of<F>(saved);
  }
}

}  // namespace twinlens
