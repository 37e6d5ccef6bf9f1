#include "twinlens/nn/init.h"

#include <cmath>

#include "twinlens/core/autograd.h"
#include "twinlens/core/random.h"

namespace twinlens {
namespace {

// 1/sqrt(fan_in); 0 for a layer without inputs, as PyTorch has it.
double default_bound(const Tensor& weight) {
  const std::int64_t fan_in = weight.shape().without(0).count();
  return fan_in > 0 ? 1.0 / std::sqrt(static_cast<double>(fan_in)) : 0.0;
}

}  // namespace

void Initializer::normal(Parameter& p, const std::string& name, double stddev) const {
  const NoGrad guard;
  normal_(p.value, 0.0, stddev, seed, site_of(name));
}

void Initializer::uniform(Parameter& p, const std::string& name, double bound) const {
  const NoGrad guard;
  uniform_(p.value, -bound, bound, seed, site_of(name));
}

void Initializer::constant(Parameter& p, double value) const {
  const NoGrad guard;
  p.value.fill_(value);
}

void Initializer::linear(Linear& layer, const std::string& name) const {
  const double bound = default_bound(layer.weight.value);
  uniform(layer.weight, name + ".weight", bound);
  if (layer.bias.defined()) uniform(layer.bias, name + ".bias", bound);
}

void Initializer::conv(Conv2d& layer, const std::string& name) const {
  const double bound = default_bound(layer.weight.value);
  uniform(layer.weight, name + ".weight", bound);
  if (layer.bias.defined()) uniform(layer.bias, name + ".bias", bound);
}

void Initializer::patch_embed(PatchEmbed& layer, const std::string& name) const {
  const double bound = default_bound(layer.weight.value);
  uniform(layer.weight, name + ".weight", bound);
  if (layer.bias.defined()) uniform(layer.bias, name + ".bias", bound);
}

void Initializer::attention(MultiheadAttention& layer, const std::string& name) const {
  const Tensor& w = layer.in_proj_weight.value;
  uniform(layer.in_proj_weight, name + ".in_proj_weight", std::sqrt(6.0 / static_cast<double>(w.size(0) + w.size(1))));
  constant(layer.in_proj_bias, 0.0);
  linear(layer.out_proj, name + ".out_proj");
  constant(layer.out_proj.bias, 0.0);
}

}  // namespace twinlens
