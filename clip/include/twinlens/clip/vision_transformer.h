#pragma once
// ViT image tower of CLIP (Dosovitskiy et al. 2021, arXiv:2010.11929; OpenAI clip/model.py VisionTransformer): patch embedding without
// bias, class token, learned positions, ln_pre, pre-norm blocks, ln_post on the class token, projection stored (width, embed).
//
// The variants that open_clip has: no ln_pre, the mean of the patch tokens instead of the class token (CLIPA), attentional pooling (CoCa),
// fixed sine positions, layer scale; and SigLIP's trunk, which has neither class token nor projection and pools with a learned query.

#include <optional>

#include "twinlens/clip/attention_pool.h"
#include "twinlens/clip/config.h"
#include "twinlens/clip/patch_dropout.h"

namespace twinlens {

struct VisionTransformer {
  Parameter class_embedding;       // (W); absent in SigLIP
  Parameter positional_embedding;  // (T, W), T = grid^2 + 1, without class token grid^2
  Parameter proj;                  // (W, E), (E, E) after attentional pooling; absent in SigLIP
  PatchEmbed conv1;
  std::optional<LayerNorm> ln_pre;
  LayerNorm ln_post;
  Transformer transformer;
  std::optional<AttentionalPooler> attn_pool;
  std::optional<LatentPool> latent_pool;
  // Compute only the class token in the last block, and only the query that is read in an attentional pooler (equal numbers).
  bool pooled_last_block = true;

  VisionTransformer() = default;
  explicit VisionTransformer(const ModelConfig& config);
  void initialize(const Initializer& init, const std::string& name);
  // images (B, S, S, 3) u8, or f32 normalised -> (B, E) f32, not normalised
  // With `patches`, of those only: each picture is the class token and its `patches.each`.
  Tensor operator()(const Tensor& images, const Context& context, const PatchSelection& patches = {}) const;
  void visit(Visitor& v);

 private:
  Tensor tokens_of(const Tensor& images, const Context& context, const PatchSelection& patches) const;  // (B * T, W)
  Tensor pool(const Tensor& x, std::int64_t batch, bool only_first, const Context& context) const;      // blocks' output -> (B, W or E)
  bool average_ = false, final_ln_after_pool_ = false, one_token_ = true, fixed_positions_ = false;
};

}  // namespace twinlens
