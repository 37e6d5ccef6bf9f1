#pragma once
// ViT image tower of CLIP (Dosovitskiy et al. 2021, arXiv:2010.11929; OpenAI clip/model.py VisionTransformer): patch embedding without
// bias, class token, learned positions, ln_pre, pre-norm blocks, ln_post on the class token, projection stored (width, embed).

#include "twinlens/clip/config.h"
#include "twinlens/nn/init.h"
#include "twinlens/nn/transformer.h"

namespace twinlens {

struct VisionTransformer {
  Parameter class_embedding;       // (W)
  Parameter positional_embedding;  // (grid^2 + 1, W)
  Parameter proj;                  // (W, E)
  PatchEmbed conv1;
  LayerNorm ln_pre, ln_post;
  Transformer transformer;
  bool pooled_last_block = true;  // compute only the class token in the last block (equal numbers, design.md 5.2)

  VisionTransformer() = default;
  explicit VisionTransformer(const ModelConfig& config);
  void initialize(const Initializer& init, const std::string& name);
  // images (B, S, S, 3) u8, or f32 normalised -> (B, E) f32, not normalised
  Tensor operator()(const Tensor& images, const Context& context) const;
  void visit(Visitor& v);
};

}  // namespace twinlens
