#pragma once
// Initialisers. Each fills one parameter as a pure function of (seed, parameter name): the order of calls does not matter.

#include <string>

#include "twinlens/nn/layers.h"
#include "twinlens/nn/transformer.h"

namespace twinlens {

struct Initializer {
  std::uint64_t seed = 0;

  void normal(Parameter& p, const std::string& name, double stddev) const;
  void uniform(Parameter& p, const std::string& name, double bound) const;  // [-bound, bound)
  void constant(Parameter& p, double value) const;

  // PyTorch's defaults: weight and bias uniform in +-1/sqrt(fan_in) (kaiming_uniform with a = sqrt 5); 0 without inputs.
  void linear(Linear& layer, const std::string& name) const;
  void conv(Conv2d& layer, const std::string& name) const;
  void patch_embed(PatchEmbed& layer, const std::string& name) const;
  // torch.nn.MultiheadAttention: in_proj xavier-uniform, its bias and out_proj's bias 0, out_proj.weight like a Linear.
  void attention(MultiheadAttention& layer, const std::string& name) const;
};

}  // namespace twinlens
