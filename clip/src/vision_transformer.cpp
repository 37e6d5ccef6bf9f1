#include "twinlens/clip/vision_transformer.h"

#include <cmath>

#include "twinlens/core/check.h"
#include "twinlens/kernels/scope.h"

namespace twinlens {

VisionTransformer::VisionTransformer(const ModelConfig& c)
    : class_embedding(Shape{c.vision.width}),
      positional_embedding(Shape{c.vision.grid() * c.vision.grid() + 1, c.vision.width}),
      proj(Shape{c.vision.width, c.embed_dim}),
      conv1(c.vision.width, c.vision.patch_size),
      ln_pre(c.vision.width),
      ln_post(c.vision.width),
      transformer(c.vision.width, c.vision.layers[0], c.vision.heads(), static_cast<std::int64_t>(c.vision.width * c.vision.mlp_ratio),
                  c.quick_gelu ? Activation::quick_gelu : Activation::gelu) {
  conv1.mean = c.preprocess.mean;
  conv1.std = c.preprocess.std;
}

void VisionTransformer::initialize(const Initializer& init, const std::string& name) {
  const double scale = 1.0 / std::sqrt(static_cast<double>(class_embedding.value.count()));
  init.normal(class_embedding, name + ".class_embedding", scale);
  init.normal(positional_embedding, name + ".positional_embedding", scale);
  init.normal(proj, name + ".proj", scale);
  init.patch_embed(conv1, name + ".conv1");
  for (std::size_t i = 0; i < transformer.resblocks.size(); ++i) {
    const std::string block = name + ".transformer.resblocks." + std::to_string(i);
    ResidualAttentionBlock& b = transformer.resblocks[i];
    init.attention(b.attn, block + ".attn");
    init.linear(b.mlp.c_fc, block + ".mlp.c_fc");
    init.linear(b.mlp.c_proj, block + ".mlp.c_proj");
  }
}

Tensor VisionTransformer::operator()(const Tensor& images, const Context& context) const {
  const Scope scope("visual");
  const std::int64_t w = class_embedding.value.count(), t = positional_embedding.value.size(0);
  const std::int64_t b = images.size(0);
  const Tensor patches = conv1(images, context);  // (B * grid^2, W)
  check(patches.size(0) == b * (t - 1), "visual",
        "the image size does not fit the positions; " + std::to_string(t - 1) + " patches are known",
        {{"images", images}, {"positional_embedding", positional_embedding.value}});
  const Tensor cls = class_embedding.value.reshape({1, 1, w}).expand({b, 1, w});
  const Tensor tokens = add(concat({cls, patches.reshape({b, t - 1, w})}, 1), positional_embedding.value);  // (B, T, W)
  const Tensor x = ln_pre(tokens.reshape({b * t, w}), DType::f32);
  const SequenceOffsets offsets = equal_offsets(b, t, x.device());
  const Tensor first = offsets.starts();  // row of each class token
  const Scope inner("transformer");
  Tensor pooled;  // (B, W)
  if (pooled_last_block) {
    pooled = transformer(x, offsets, false, first, context);
  } else {
    pooled = index_select(transformer(x, offsets, false, {}, context), 0, first);
  }
  MatmulOptions product;
  product.compute = context.compute;
  product.out = DType::f32;
  return matmul(ln_post(pooled, context.activation_dtype()), proj.operand(context.compute), product);
}

void VisionTransformer::visit(Visitor& v) {
  v("class_embedding", class_embedding);
  v("positional_embedding", positional_embedding);
  v("proj", proj);
  v("conv1", conv1);
  v("ln_pre", ln_pre);
  v("transformer", transformer);
  v("ln_post", ln_post);
}

}  // namespace twinlens
