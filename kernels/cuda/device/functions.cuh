#pragma once
// The elementwise functions of one argument on the device: the formulas of kernels/cpu/vec/functions.h in CUDA's own f32 mathematics, all
// of it within a few units of the last place. slope() takes y where slope_is_from_output() says so, x otherwise.

#include "twinlens/kernels/activation.h"
#include "twinlens/kernels/unary.h"

namespace twinlens::cuda {

__device__ inline float sigmoid(float x) { return 1.0F / (1.0F + expf(-x)); }

// NaN stays NaN, which fminf and fmaxf do not promise.
__device__ inline float clamped(float x, float low, float high) {
  x = x < low ? low : x;
  return x > high ? high : x;
}

// x sigmoid(kx): SiLU for k = 1, OpenAI's quick GELU for k = 1.702.
__device__ inline float gated(float x, float k) { return x * sigmoid(k * x); }
__device__ inline float gated_slope(float x, float k) {
  const float s = sigmoid(k * x);
  return s + x * (k * (s * sigmoid(-k * x)));  // 1 - s without cancellation; 0, not NaN, times a large x: k x is infinite before x is
}

// x Phi(x). The distribution is 0 below -20, where 0 times infinity is not wanted.
__device__ inline float gelu(float x) { return x < -20.0F ? 0.0F : x * normcdff(x); }
__device__ inline float gelu_slope(float x) {
  const float c = clamped(x, -20.0F, 20.0F);
  return fmaf(c, 0.39894228040143268F * expf(-0.5F * c * c), normcdff(x));
}

// x (1 + tanh u) / 2 with u = sqrt(2 / pi) (x + 0.044715 x^3), computed as x sigmoid(2u): no cancellation for negative x.
inline constexpr float kGeluScale = 1.5957691216057308F;  // 2 sqrt(2 / pi)
inline constexpr float kGeluCubic = 0.044715F;
__device__ inline float gelu_tanh(float x) {
  const float c = clamped(x, -20.0F, 20.0F);  // sigmoid(2u) is 0 or 1 there, and x^3 does not overflow
  return x * sigmoid(kGeluScale * c * fmaf(kGeluCubic, c * c, 1.0F));
}
__device__ inline float gelu_tanh_slope(float x) {
  const float c = clamped(x, -20.0F, 20.0F);
  const float u2 = kGeluScale * c * fmaf(kGeluCubic, c * c, 1.0F);
  const float du2 = kGeluScale * fmaf(3.0F * kGeluCubic, c * c, 1.0F);
  const float s = sigmoid(u2);
  return fmaf(c * du2, s * sigmoid(-u2), s);
}

template <int W, class F>
__device__ inline void each(float (&v)[W], F f) {
#pragma unroll
  for (int k = 0; k < W; ++k) v[k] = f(v[k]);
}

// v = f(v) for a whole pack: one branch for all of it, which all threads take alike.
template <int W>
__device__ inline void apply_function(UnaryFunction function, float low, float high, float (&v)[W]) {
  switch (function) {
    case UnaryFunction::abs: return each(v, [](float x) { return fabsf(x); });
    case UnaryFunction::exp: return each(v, [](float x) { return expf(x); });
    case UnaryFunction::log: return each(v, [](float x) { return logf(x); });
    case UnaryFunction::sqrt: return each(v, [](float x) { return sqrtf(x); });
    case UnaryFunction::square: return each(v, [](float x) { return x * x; });
    case UnaryFunction::tanh: return each(v, [](float x) { return tanhf(x); });
    case UnaryFunction::sigmoid: return each(v, [](float x) { return sigmoid(x); });
    case UnaryFunction::log_sigmoid: return each(v, [](float x) { return (x < 0.0F ? x : 0.0F) - log1pf(expf(-fabsf(x))); });
    case UnaryFunction::silu: return each(v, [](float x) { return gated(x, 1.0F); });
    case UnaryFunction::relu: return each(v, [](float x) { return x < 0.0F ? 0.0F : x; });
    case UnaryFunction::gelu: return each(v, [](float x) { return gelu(x); });
    case UnaryFunction::gelu_tanh: return each(v, [](float x) { return gelu_tanh(x); });
    case UnaryFunction::quick_gelu: return each(v, [](float x) { return gated(x, 1.702F); });
    case UnaryFunction::clamp: return each(v, [=](float x) { return clamped(x, low, high); });
  }
}

// v = f'(v); v holds y where slope_is_from_output(function), else x.
template <int W>
__device__ inline void apply_slope(UnaryFunction function, float low, float high, float (&v)[W]) {
  switch (function) {
    case UnaryFunction::abs: return each(v, [](float x) { return x > 0.0F ? 1.0F : x < 0.0F ? -1.0F : x; });
    case UnaryFunction::exp: return;
    case UnaryFunction::log: return each(v, [](float x) { return 1.0F / x; });
    case UnaryFunction::sqrt: return each(v, [](float y) { return 0.5F / y; });
    case UnaryFunction::square: return each(v, [](float x) { return x + x; });
    case UnaryFunction::tanh: return each(v, [](float y) { return (1.0F - y) * (1.0F + y); });
    case UnaryFunction::sigmoid: return each(v, [](float y) { return y * (1.0F - y); });
    case UnaryFunction::log_sigmoid: return each(v, [](float x) { return sigmoid(-x); });
    case UnaryFunction::silu: return each(v, [](float x) { return gated_slope(x, 1.0F); });
    case UnaryFunction::relu: return each(v, [](float y) { return y <= 0.0F ? 0.0F : 1.0F; });
    case UnaryFunction::gelu: return each(v, [](float x) { return gelu_slope(x); });
    case UnaryFunction::gelu_tanh: return each(v, [](float x) { return gelu_tanh_slope(x); });
    case UnaryFunction::quick_gelu: return each(v, [](float x) { return gated_slope(x, 1.702F); });
    case UnaryFunction::clamp: return each(v, [=](float x) { return x >= low && x <= high ? 1.0F : 0.0F; });
  }
}

// v = activation'(v), where v holds the activation's argument (relu's slope is stated in terms of y, which has the sign of x).
template <int W>
__device__ inline void apply_activation_slope(Activation activation, float (&v)[W]) {
  switch (activation) {
    case Activation::none: return each(v, [](float) { return 1.0F; });
    case Activation::relu: return apply_slope(UnaryFunction::relu, 0.0F, 0.0F, v);
    case Activation::gelu: return apply_slope(UnaryFunction::gelu, 0.0F, 0.0F, v);
    case Activation::gelu_tanh: return apply_slope(UnaryFunction::gelu_tanh, 0.0F, 0.0F, v);
    case Activation::quick_gelu: return apply_slope(UnaryFunction::quick_gelu, 0.0F, 0.0F, v);
    case Activation::silu: return apply_slope(UnaryFunction::silu, 0.0F, 0.0F, v);
  }
}

}  // namespace twinlens::cuda
