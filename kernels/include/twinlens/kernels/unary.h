#pragma once
// y[i] = f(x[i]) and dx[i] = dy[i] f'(x[i]) for the functions of one argument. The formulas stand in kernels/cpu/vec/functions.h.

#include "twinlens/kernels/run.h"
#include "twinlens/kernels/view.h"

namespace twinlens {

enum class UnaryFunction : std::uint8_t {
  abs,
  exp,
  log,
  sqrt,
  square,
  tanh,
  sigmoid,
  log_sigmoid,  // -log(1 + e^-x)
  silu,         // x sigmoid(x)
  relu,
  gelu,        // x (1 + erf(x / sqrt 2)) / 2
  gelu_tanh,   // x (1 + tanh(sqrt(2 / pi) (x + 0.044715 x^3))) / 2
  quick_gelu,  // x sigmoid(1.702 x)
  clamp,       // min(max(x, low), high); slope 1 on [low, high]
};

// Whether the derivative is computed from y instead of x: cheaper, and y is often alive anyway.
[[gnu::always_inline]] constexpr bool slope_is_from_output(UnaryFunction f) {
  return f == UnaryFunction::exp || f == UnaryFunction::sqrt || f == UnaryFunction::tanh || f == UnaryFunction::sigmoid ||
         f == UnaryFunction::relu;
}

struct UnaryForward {
  static constexpr const char* kName = "unary_forward";
  static constexpr bool kCuda = true;
  static constexpr UsesBf16 kBf16 = UsesBf16::rounding;
  UnaryFunction function;
  ConstBuffer x;                  // float
  Buffer y;                       // same dtype and count
  float low = 0.0F, high = 0.0F;  // clamp only
};
template <class I>
void kernel(I, const UnaryForward&);
void launch(Cuda, Stream&, const UnaryForward&);

struct UnaryBackward {
  static constexpr const char* kName = "unary_backward";
  static constexpr bool kCuda = true;
  static constexpr UsesBf16 kBf16 = UsesBf16::rounding;
  UnaryFunction function;
  ConstBuffer saved;  // y where slope_is_from_output(function), else x
  ConstBuffer dy;     // dtype and count of saved
  Buffer dx;          // the same
  float low = 0.0F, high = 0.0F;
};
template <class I>
void kernel(I, const UnaryBackward&);
void launch(Cuda, Stream&, const UnaryBackward&);

}  // namespace twinlens
