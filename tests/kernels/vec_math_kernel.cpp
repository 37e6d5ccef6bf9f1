#include "kernels/cpu/vec/math.h"
#include "tests/kernels/vec_math.h"

namespace twinlens::test {
namespace {

template <class I>
TWINLENS_INLINE Vec<I> value(MathFunction function, Vec<I> x) {
  using M = Math<I>;
  switch (function) {
    case MathFunction::exp: return M::exp(x);
    case MathFunction::exp_nonpositive: return M::exp_nonpositive(x);
    case MathFunction::log: return M::log(x);
    case MathFunction::log1p: return M::log1p(x);
    case MathFunction::log1p_exp_neg_abs: return M::log1p_exp_neg_abs(x);
    case MathFunction::sigmoid: return M::sigmoid(x);
    case MathFunction::sigmoid_rest: return M::sigmoid_and_rest(x).rest;
    case MathFunction::tanh: return M::tanh(x);
    case MathFunction::density: return M::normal(x).density;
    case MathFunction::tail: return M::normal(x).tail;
    case MathFunction::gelu_loss: return M::gelu_loss(x);
    case MathFunction::gelu_slope_loss: return M::gelu_slope_loss(x);
  }
  return x;
}

}  // namespace

template <class I>
void kernel(I, const VecMath& a) {
  for_lanes<I>(a.count,
               [&](std::int64_t i, std::int64_t n) { store_lanes<I>(value<I>(a.function, load_lanes<I>(a.x + i, n)), a.y + i, n); });
}
template void kernel(TWINLENS_ISA, const VecMath&);

}  // namespace twinlens::test
