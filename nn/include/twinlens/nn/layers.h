#pragma once
// The layers that Transformers and ResNets are made of: plain structs over ops. Constructors allocate; init.h fills.

#include "twinlens/nn/parameter.h"

namespace twinlens {

// y = x w^T + bias; w (out, in), bias (out) or absent.
struct Linear {
  Parameter weight, bias;

  Linear() = default;
  Linear(std::int64_t in, std::int64_t out, bool with_bias = true);
  // (..., in) -> (..., out); the epilogue (activation, residual) runs inside the product.
  Tensor operator()(const Tensor& x, const Context& context, Activation activation = Activation::none, const Tensor& residual = {}) const;
  void visit(Visitor& v);
};

struct LayerNorm {
  Parameter weight, bias;
  double eps = 1e-5;

  LayerNorm() = default;
  explicit LayerNorm(std::int64_t width, double epsilon = 1e-5);
  // (..., C) f32 -> (..., C) in `out`
  // `recompute` as in layer_norm().
  Tensor operator()(const Tensor& x, DType out, bool recompute = false) const;
  void visit(Visitor& v);
};

struct Embedding {
  Parameter weight;  // (vocabulary, width)

  Embedding() = default;
  Embedding(std::int64_t vocabulary, std::int64_t width);
  Tensor operator()(const Tensor& ids) const;  // (...) i64 -> (..., width) f32
  void visit(Visitor& v);
};

// NHWC; weight (out, in, k, k).
struct Conv2d {
  Parameter weight, bias;
  int stride = 1, padding = 0;

  Conv2d() = default;
  Conv2d(std::int64_t in, std::int64_t out, int kernel, int stride, int padding, bool with_bias = false);
  Tensor operator()(const Tensor& x, const Context& context) const;  // (B, H, W, in) -> (B, H', W', out)
  void visit(Visitor& v);
};

struct BatchNorm2d {
  Parameter weight, bias;
  mutable Tensor running_mean, running_var;  // written by a training forward pass
  double eps = 1e-5, momentum = 0.1;

  BatchNorm2d() = default;
  explicit BatchNorm2d(std::int64_t channels);
  // (B, H, W, C); relu(bn(x) + residual) when asked. Other activations are a ShapeError.
  Tensor operator()(const Tensor& x, const Context& context, Activation activation = Activation::none, const Tensor& residual = {}) const;
  void visit(Visitor& v);
};

// Zeroes elements in training. `site` is the place in the model, site_of(its name): layers of one site draw the same mask, and a layer
// that draws without one (0) is a ConfigError.
struct Dropout {
  double probability = 0.0;
  std::uint64_t site = 0;

  Tensor operator()(const Tensor& x, const Context& context, const RowIds& ids) const;
};

// Non-overlapping patches times a weight (width, 3, patch, patch): the ViT stem, a convolution with kernel = stride.
struct PatchEmbed {
  Parameter weight, bias;
  int patch = 16;
  std::array<float, 3> mean{0, 0, 0}, std{1, 1, 1};  // u8 pixels become (x / 255 - mean) / std

  PatchEmbed() = default;
  PatchEmbed(std::int64_t width, int patch_size, bool with_bias = false);
  // (B, S, S, 3) u8, or f32 and normalised already -> (B * (S/patch)^2, width) f32
  // With `picked` (n) i64 only those rows of the result are computed: (n, width).
  Tensor operator()(const Tensor& images, const Context& context, const Tensor& picked = {}) const;
  void visit(Visitor& v);
};

}  // namespace twinlens
