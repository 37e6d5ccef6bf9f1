#pragma once
// The smooth activations and their slopes for results of two bytes: relative errors of 2e-6 (1e-5 in the tails of both GELUs; of slopes,
// absolute) instead of a few units of the last place, far below the rounding of the result, at half the instructions. In f32:
// functions.cuh.

#include "kernels/cuda/device/instructions.cuh"

#include "twinlens/kernels/activation.h"
#include "twinlens/kernels/unary.h"

namespace twinlens::cuda {

__device__ inline float short_sigmoid(float x) { return reciprocal_fast(1.0F + exp2_fast(-1.4426950408889634F * x)); }
// NaN stays NaN, which fminf and fmaxf do not promise.
__device__ inline float within(float x, float most) {
  x = x < -most ? -most : x;
  return x > most ? most : x;
}

// The normal distribution's tail from a on, and exp(-a^2 / 2). The tail is that exponential times R(a), and R is a polynomial in
// t = 1 / (1 + 0.36 a) without a constant term, fitted for the smallest relative error on [0, 14].
struct NormalTail {
  float tail, density;
};
__device__ inline NormalTail short_tail(float a) {
  const float t = reciprocal_fast(fmaf(0.36F, a, 1.0F));
  float r = fmaf(0.047057928364F, t, -0.179770394062F);
  r = fmaf(r, t, 0.180961861688F);
  r = fmaf(r, t, 0.026543882879F);
  r = fmaf(r, t, 0.139721256176F);
  r = fmaf(r, t, 0.141772091074F);
  r = fmaf(r, t, 0.143713070968F);
  const float density = exp2_fast(-0.72134752044448170F * (a * a));
  return {r * t * density, density};
}

__device__ inline float short_gelu(float x) {
  const float a = fminf(fabsf(x), 20.0F);  // the tail is 0 there, and infinity times 0 is not wanted
  return fmaf(-a, short_tail(a).tail, x < 0.0F ? 0.0F : x);
}
__device__ inline float short_gelu_slope(float x) {
  const float c = within(x, 20.0F);
  const NormalTail n = short_tail(fabsf(c));
  return fmaf(c * 0.39894228040143268F, n.density, c < 0.0F ? n.tail : 1.0F - n.tail);
}

__device__ inline float short_gated(float x, float k) { return x * short_sigmoid(k * x); }
__device__ inline float short_gated_slope(float x, float k) {
  const float u = within(k * x, 80.0F), s = short_sigmoid(u);
  return s * fmaf(u, 1.0F - s, 1.0F);
}

// As in functions.cuh.
__device__ inline float short_gelu_tanh(float x) {
  const float c = within(x, 20.0F);
  return x * short_sigmoid(1.5957691216057308F * c * fmaf(0.044715F, c * c, 1.0F));
}
__device__ inline float short_gelu_tanh_slope(float x) {
  const float c = within(x, 20.0F);
  const float s = short_sigmoid(1.5957691216057308F * c * fmaf(0.044715F, c * c, 1.0F));
  return s * fmaf(c * (1.5957691216057308F * fmaf(0.134145F, c * c, 1.0F)), 1.0F - s, 1.0F);
}

// v = activation(v) and v = activation'(v) for a pack; one branch for all of it.
template <int W>
__device__ inline void apply_short_activation(Activation activation, float (&v)[W]) {
  const auto each = [&](auto f) {
#pragma unroll
    for (int k = 0; k < W; ++k) v[k] = f(v[k]);
  };
  switch (activation) {
    case Activation::none: return;
    case Activation::relu: return each([](float x) { return x < 0.0F ? 0.0F : x; });
    case Activation::gelu: return each([](float x) { return short_gelu(x); });
    case Activation::gelu_tanh: return each([](float x) { return short_gelu_tanh(x); });
    case Activation::quick_gelu: return each([](float x) { return short_gated(x, 1.702F); });
    case Activation::silu: return each([](float x) { return short_gated(x, 1.0F); });
  }
}
template <int W>
__device__ inline void apply_short_slope(Activation activation, float (&v)[W]) {
  const auto each = [&](auto f) {
#pragma unroll
    for (int k = 0; k < W; ++k) v[k] = f(v[k]);
  };
  switch (activation) {
    case Activation::none: return each([](float) { return 1.0F; });
    case Activation::relu: return each([](float y) { return y <= 0.0F ? 0.0F : 1.0F; });
    case Activation::gelu: return each([](float x) { return short_gelu_slope(x); });
    case Activation::gelu_tanh: return each([](float x) { return short_gelu_tanh_slope(x); });
    case Activation::quick_gelu: return each([](float x) { return short_gated_slope(x, 1.702F); });
    case Activation::silu: return each([](float x) { return short_gated_slope(x, 1.0F); });
  }
}

// Whether a function of one argument is one of these activations.
__device__ inline bool as_activation(UnaryFunction function, Activation& activation) {
  switch (function) {
    case UnaryFunction::silu: activation = Activation::silu; return true;
    case UnaryFunction::gelu: activation = Activation::gelu; return true;
    case UnaryFunction::gelu_tanh: activation = Activation::gelu_tanh; return true;
    case UnaryFunction::quick_gelu: activation = Activation::quick_gelu; return true;
    default: return false;
  }
}

}  // namespace twinlens::cuda
