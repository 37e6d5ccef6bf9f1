#pragma once
// Pooling of an image tower's tokens by attention with learned queries.

#include "twinlens/nn/init.h"
#include "twinlens/nn/transformer.h"

namespace twinlens {

// open_clip's AttentionalPooler (CoCa, Yu et al. 2022, arXiv:2205.01917): n learned queries of width E look at the tokens of width W.
struct AttentionalPooler {
  Parameter query;  // (n, E)
  LayerNorm ln_q, ln_k;
  // torch.nn.MultiheadAttention with kdim = vdim = W: one joint weight (3E, E) when W = E, else one each for q, k and v.
  Parameter in_proj_weight;                               // (3E, E)
  Parameter q_proj_weight, k_proj_weight, v_proj_weight;  // (E, E), (E, W), (E, W)
  Parameter in_proj_bias;                                 // (3E)
  Linear out_proj;
  int heads = 1;

  AttentionalPooler() = default;
  AttentionalPooler(std::int64_t width, std::int64_t embed, int head_count, int queries, double eps);
  void initialize(const Initializer& init, const std::string& name);
  // x (B * T, W) f32 -> (B * (end - begin), E) f32: what the queries [begin, end) see
  Tensor operator()(const Tensor& x, std::int64_t batch, std::int64_t begin, std::int64_t end, const Context& context) const;
  void visit(Visitor& v);
};

// SigLIP's head (Zhai et al. 2022, arXiv:2106.04560; timm AttentionPoolLatent): one learned query, then x + mlp(norm(x)).
struct LatentPool {
  Parameter latent;  // (1, 1, W)
  Linear q, kv, proj;
  LayerNorm norm;
  Mlp mlp;
  int heads = 1;

  LatentPool() = default;
  LatentPool(std::int64_t width, int head_count, std::int64_t hidden, const BlockOptions& options);
  void initialize(const Initializer& init, const std::string& name);
  Tensor operator()(const Tensor& x, std::int64_t batch, const Context& context) const;  // (B * T, W) f32 -> (B, W) f32
  void visit(Visitor& v);
};

}  // namespace twinlens
