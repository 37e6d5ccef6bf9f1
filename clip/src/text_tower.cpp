#include "twinlens/clip/text_tower.h"

#include <cmath>

#include "twinlens/core/check.h"
#include "twinlens/kernels/scope.h"

namespace twinlens {

TokenBatch pack_captions(const std::vector<std::vector<std::int32_t>>& captions, int pad_to) {
  std::vector<std::int64_t> ids, positions, offsets{0}, last;
  for (const std::vector<std::int32_t>& caption : captions) {
    if (caption.empty())
      throw ShapeError("pack_captions: a caption without tokens; caption " + std::to_string(last.size()) +
                       "; give at least start and end of text");
    if (pad_to > 0 && static_cast<int>(caption.size()) > pad_to) {
      throw ShapeError("pack_captions: a caption of " + std::to_string(caption.size()) + " tokens; context " + std::to_string(pad_to) +
                       "; truncate it first");
    }
    for (std::size_t i = 0; i < caption.size(); ++i) {
      ids.push_back(caption[i]);
      positions.push_back(static_cast<std::int64_t>(i));
    }
    last.push_back(static_cast<std::int64_t>(ids.size()) - 1);
    for (int i = static_cast<int>(caption.size()); i < pad_to; ++i) {
      ids.push_back(0);
      positions.push_back(i);
    }
    offsets.push_back(static_cast<std::int64_t>(ids.size()));
  }
  const auto tensor = [](const std::vector<std::int64_t>& v) { return from_vector(v, {static_cast<std::int64_t>(v.size())}); };
  return {tensor(ids), tensor(positions), SequenceOffsets(offsets), tensor(last), pad_to == 0};
}

TokenBatch TokenBatch::to(Device device) const {
  return {ids.to(device), positions.to(device), offsets.to(device), last.to(device), packed};
}

TextTower::TextTower(const ModelConfig& c)
    : token_embedding(c.text.vocab_size, c.text.width),
      positional_embedding(Shape{c.text.context_length, c.text.width}),
      transformer(c.text.width, c.text.layers, c.text.heads, static_cast<std::int64_t>(c.text.width * c.text.mlp_ratio),
                  c.quick_gelu ? Activation::quick_gelu : Activation::gelu),
      ln_final(c.text.width),
      text_projection(Shape{c.text.width, c.embed_dim}) {}

void TextTower::initialize(const Initializer& init) {
  const auto width = static_cast<double>(positional_embedding.value.size(1));
  const auto layers = static_cast<double>(transformer.resblocks.size());
  const double attention_std = 1.0 / std::sqrt(width);
  const double projection_std = attention_std / std::sqrt(2.0 * layers);
  init.normal(token_embedding.weight, "token_embedding.weight", 0.02);
  init.normal(positional_embedding, "positional_embedding", 0.01);
  for (std::size_t i = 0; i < transformer.resblocks.size(); ++i) {
    const std::string block = "transformer.resblocks." + std::to_string(i);
    ResidualAttentionBlock& b = transformer.resblocks[i];
    init.attention(b.attn, block + ".attn");
    init.linear(b.mlp.c_fc, block + ".mlp.c_fc");
    init.linear(b.mlp.c_proj, block + ".mlp.c_proj");
    init.normal(b.attn.in_proj_weight, block + ".attn.in_proj_weight", attention_std);
    init.normal(b.attn.out_proj.weight, block + ".attn.out_proj.weight", projection_std);
    init.normal(b.mlp.c_fc.weight, block + ".mlp.c_fc.weight", 1.0 / std::sqrt(2.0 * width));
    init.normal(b.mlp.c_proj.weight, block + ".mlp.c_proj.weight", projection_std);
  }
  init.normal(text_projection, "text_projection", attention_std);
}

Tensor TextTower::operator()(const TokenBatch& captions, const Context& context) const {
  const Scope scope("text");
  const Tensor x = add(token_embedding(captions.ids), index_select(positional_embedding.value, 0, captions.positions));  // (N, W)
  const Scope inner("transformer");
  // Packed captions end with the token that is read: the last block computes only that row. Padded ones take the plain path.
  Tensor pooled;  // (S, W)
  if (captions.packed) {
    pooled = transformer(x, captions.offsets, true, captions.last, context);
  } else {
    pooled = index_select(transformer(x, captions.offsets, true, {}, context), 0, captions.last);
  }
  MatmulOptions product;
  product.compute = context.compute;
  product.out = DType::f32;
  return matmul(ln_final(pooled, context.activation_dtype()), text_projection.operand(context.compute), product);
}

void TextTower::visit(Visitor& v) {
  v("positional_embedding", positional_embedding);
  v("text_projection", text_projection);
  v("transformer", transformer);
  v("token_embedding", token_embedding);
  v("ln_final", ln_final);
}

}  // namespace twinlens
