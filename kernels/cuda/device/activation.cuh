#pragma once
// The activations of a product's epilogue in device code; formulas as in kernels/cpu/vec/functions.h.

#include "twinlens/kernels/activation.h"

namespace twinlens::cuda {

__device__ inline float sigmoid_of(float x) { return 1.0F / (1.0F + expf(-x)); }

__device__ inline float activate(Activation activation, float x) {
  switch (activation) {
    case Activation::none: return x;
    case Activation::relu: return x < 0.0F ? 0.0F : x;
    case Activation::gelu: {
      const float size = fminf(fabsf(x), 20.0F);  // the tail is 0 there, and 0 times infinity is not wanted
      return (x < 0.0F ? 0.0F : x) - size * 0.5F * erfcf(size * 0.70710678118654752F);
    }
    case Activation::gelu_tanh: {
      const float c = fminf(fmaxf(x, -20.0F), 20.0F);
      return x * sigmoid_of(1.5957691216057308F * c * (1.0F + 0.044715F * c * c));
    }
    case Activation::quick_gelu: return x * sigmoid_of(1.702F * x);
    case Activation::silu: return x * sigmoid_of(x);
  }
  return x;
}

}  // namespace twinlens::cuda
