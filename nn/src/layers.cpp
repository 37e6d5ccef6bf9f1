#include "twinlens/nn/layers.h"

#include <algorithm>

#include "twinlens/core/autograd.h"
#include "twinlens/core/check.h"

namespace twinlens {

Linear::Linear(std::int64_t in, std::int64_t out, bool with_bias) : weight(Shape{out, in}) {
  if (with_bias) bias = Parameter(Shape{out});
}

Tensor Linear::operator()(const Tensor& x, const Context& context, Activation activation, const Tensor& residual) const {
  LinearOptions options;
  options.recompute = context.recompute_cheap;
  options.activation = activation;
  options.residual = residual;
  options.out = residual.defined() ? residual.dtype() : context.activation_dtype();
  options.compute = context.compute;
  return linear(x, weight.operand(context.compute), bias.value, options);
}

void Linear::visit(Visitor& v) {
  v("weight", weight);
  v("bias", bias);
}

LayerNorm::LayerNorm(std::int64_t width, double epsilon) : weight(Shape{width}), bias(Shape{width}), eps(epsilon) {
  const NoGrad guard;
  weight.value.fill_(1.0);
}

Tensor LayerNorm::operator()(const Tensor& x, DType out, bool recompute) const {
  return layer_norm(x, weight.value, bias.value, eps, out, recompute);
}

void LayerNorm::visit(Visitor& v) {
  v("weight", weight);
  v("bias", bias);
}

Embedding::Embedding(std::int64_t vocabulary, std::int64_t width) : weight(Shape{vocabulary, width}) {}

Tensor Embedding::operator()(const Tensor& ids) const { return embedding(weight.value, ids); }

void Embedding::visit(Visitor& v) { v("weight", weight); }

Conv2d::Conv2d(std::int64_t in, std::int64_t out, int kernel, int step, int pad, bool with_bias)
    : weight(Shape{out, in, kernel, kernel}), stride(step), padding(pad) {
  if (with_bias) bias = Parameter(Shape{out});
}

Tensor Conv2d::operator()(const Tensor& x, const Context& context) const {
  ConvOptions options;
  options.stride = stride;
  options.padding = padding;
  options.compute = context.compute;
  options.out = context.activation_dtype();
  return conv2d(x, weight.operand(context.compute), bias.value, options);
}

void Conv2d::visit(Visitor& v) {
  v("weight", weight);
  v("bias", bias);
}

BatchNorm2d::BatchNorm2d(std::int64_t channels)
    : weight(Shape{channels}), bias(Shape{channels}), running_mean(zeros({channels})), running_var(full({channels}, 1.0)) {
  const NoGrad guard;
  weight.value.fill_(1.0);
}

Tensor BatchNorm2d::operator()(const Tensor& x, const Context& context, Activation activation, const Tensor& residual) const {
  check(activation == Activation::none || activation == Activation::relu, "BatchNorm2d", "applies no activation but relu itself",
        {{"x", x}});
  BatchNormOptions options;
  options.training = context.training;
  options.eps = eps;
  options.momentum = momentum;
  options.update_running = context.update_statistics;
  options.relu = activation == Activation::relu;
  options.residual = residual;
  options.out = context.activation_dtype();
  return batch_norm(x, weight.value, bias.value, running_mean, running_var, options);
}

void BatchNorm2d::visit(Visitor& v) {
  v("weight", weight);
  v("bias", bias);
  v.buffer("running_mean", running_mean);
  v.buffer("running_var", running_var);
}

Tensor Dropout::operator()(const Tensor& x, const Context& context, const RowIds& ids) const {
  if (!context.training || probability == 0.0) return x;
  if (site == 0) throw ConfigError("dropout: layers of one site draw the same mask; Dropout::site is 0; give each layer site_of(its name)");
  return dropout(x, probability, {context.step, site}, ids);
}

PatchEmbed::PatchEmbed(std::int64_t width, int patch_size, bool with_bias)
    : weight(Shape{width, 3, patch_size, patch_size}), patch(patch_size) {
  if (with_bias) bias = Parameter(Shape{width});
}

Tensor PatchEmbed::operator()(const Tensor& images, const Context& context, const Tensor& picked) const {
  PatchifyOptions options;
  options.patch = patch;
  std::copy(mean.begin(), mean.end(), options.mean);
  std::copy(std.begin(), std.end(), options.std);
  options.out = context.activation_dtype();
  const Tensor all = patchify(images, options);  // (B * patches, 3 * patch * patch)
  const Tensor rows = picked.defined() ? index_select(all, 0, picked) : all;
  const Tensor& w = weight.operand(context.compute);
  LinearOptions product;
  product.compute = context.compute;
  product.out = DType::f32;
  return linear(rows, w.reshape({w.size(0), -1}), bias.value, product);
}

void PatchEmbed::visit(Visitor& v) {
  v("weight", weight);
  v("bias", bias);
}

}  // namespace twinlens
