#include "twinlens/clip/vision_transformer.h"

#include <cmath>

#include "twinlens/core/autograd.h"
#include "twinlens/core/check.h"
#include "twinlens/kernels/scope.h"

namespace twinlens {
namespace {

BlockOptions image_block_options(const ModelConfig& c) {
  BlockOptions options(c.vision_activation());
  options.eps = c.vision.eps;
  options.layer_scale = c.vision.ls_init_value;
  return options;
}

std::int64_t hidden_of(const VisionConfig& v) { return static_cast<std::int64_t>(v.width * v.mlp_ratio); }

// MAE's fixed positions: each half of the channels holds sines and cosines of one coordinate, the column first; zeros for the class token.
void set_sine_positions(Tensor positions, std::int64_t grid) {
  const NoGrad guard;
  const std::int64_t width = positions.size(1), quarter = width / 4;
  positions.fill_(0.0);
  float* row = positions.data<float>() + width;
  for (std::int64_t place = 0; place < grid * grid; ++place, row += width) {
    const double at[2] = {static_cast<double>(place % grid), static_cast<double>(place / grid)};
    for (std::int64_t half = 0; half < 2; ++half) {
      for (std::int64_t i = 0; i < quarter; ++i) {
        const double angle = at[half] / std::pow(10000.0, static_cast<double>(i) / static_cast<double>(quarter));
        row[half * 2 * quarter + i] = static_cast<float>(std::sin(angle));
        row[half * 2 * quarter + quarter + i] = static_cast<float>(std::cos(angle));
      }
    }
  }
}

}  // namespace

VisionTransformer::VisionTransformer(const ModelConfig& c)
    : positional_embedding(Shape{c.vision.tokens(), c.vision.width}),
      conv1(c.vision.width, c.vision.patch_size, c.vision.is_siglip()),
      ln_post(c.vision.attentional_pool ? c.embed_dim : c.vision.width, c.vision.eps),
      transformer(c.vision.width, c.vision.layers[0], c.vision.heads(), hidden_of(c.vision), image_block_options(c)),
      average_(c.vision.pool_type == "avg"),
      final_ln_after_pool_(c.vision.final_ln_after_pool),
      one_token_(c.vision.pools_one_token()),
      fixed_positions_(c.vision.pos_embed_type == "sin_cos_2d") {
  conv1.mean = c.preprocess.mean;
  conv1.std = c.preprocess.std;
  const VisionConfig& v = c.vision;
  if (!v.no_ln_pre) ln_pre = LayerNorm(v.width, v.eps);
  if (v.is_siglip()) {
    latent_pool = LatentPool(v.width, v.heads(), hidden_of(v), image_block_options(c));
    return;
  }
  class_embedding = Parameter(Shape{v.width});
  proj = Parameter(Shape{v.attentional_pool ? c.embed_dim : v.width, c.embed_dim});
  // open_clip hands norm_kwargs to the tower's norms, not to those inside the pooler.
  constexpr double kPoolerEps = 1e-5;
  if (v.attentional_pool) attn_pool = AttentionalPooler(v.width, c.embed_dim, v.attn_pooler_heads, v.attn_pooler_queries, kPoolerEps);
}

void VisionTransformer::initialize(const Initializer& init, const std::string& name) {
  const bool siglip = latent_pool.has_value();
  const double scale = siglip ? 0.02 : 1.0 / std::sqrt(static_cast<double>(positional_embedding.value.size(1)));
  if (class_embedding.defined()) init.normal(class_embedding, name + ".class_embedding", scale);
  init.normal(positional_embedding, name + ".positional_embedding", scale);
  if (proj.defined()) init.normal(proj, name + ".proj", scale);
  init.patch_embed(conv1, name + ".conv1");
  if (attn_pool.has_value()) attn_pool->initialize(init, name + ".attn_pool");
  if (siglip) latent_pool->initialize(init, name + ".attn_pool");
  for (std::size_t i = 0; i < transformer.resblocks.size(); ++i) {
    const std::string block = name + ".transformer.resblocks." + std::to_string(i);
    ResidualAttentionBlock& b = transformer.resblocks[i];
    init.attention(b.attn, block + ".attn");
    init.linear(b.mlp.c_fc, block + ".mlp.c_fc");
    init.linear(b.mlp.c_proj, block + ".mlp.c_proj");
    if (!siglip) continue;
    // timm: every Linear N(0, 0.02^2), biases 0.
    init.normal(b.attn.in_proj_weight, block + ".attn.in_proj_weight", 0.02);
    const std::pair<Linear*, const char*> layers[] = {
        {&b.attn.out_proj, ".attn.out_proj"}, {&b.mlp.c_fc, ".mlp.c_fc"}, {&b.mlp.c_proj, ".mlp.c_proj"}};
    for (const auto& [layer, label] : layers) {
      init.normal(layer->weight, block + label + ".weight", 0.02);
      init.constant(layer->bias, 0.0);
    }
  }
  if (fixed_positions_) {
    set_sine_positions(positional_embedding.value,
                       static_cast<std::int64_t>(std::llround(std::sqrt(positional_embedding.value.size(0) - 1))));
    positional_embedding.value.set_requires_grad(false);
  }
}

Tensor VisionTransformer::tokens_of(const Tensor& images, const Context& context, const PatchSelection& seen) const {
  const std::int64_t w = positional_embedding.value.size(1), t = positional_embedding.value.size(0), b = images.size(0);
  const std::int64_t patches = class_embedding.defined() ? t - 1 : t;
  // Pixels that do not fill a patch are left out, as a convolution would (SigLIP at 384 with patches of 14).
  const std::int64_t high = images.size(1) / conv1.patch * conv1.patch, wide = images.size(2) / conv1.patch * conv1.patch;
  const Tensor whole = high == images.size(1) && wide == images.size(2) ? images : images.slice(1, 0, high).slice(2, 0, wide);
  check((whole.size(1) / conv1.patch) * (whole.size(2) / conv1.patch) == patches, "visual",
        "the image size does not fit the positions; " + std::to_string(patches) + " patches are known",
        {{"images", images}, {"positional_embedding", positional_embedding.value}});
  check(!seen.defined() || seen.rows.size(0) == b * seen.each, "visual", "patches must be chosen for every picture",
        {{"images", images}, {"rows", seen.rows}});
  const std::int64_t n = seen.defined() ? seen.each : patches, first = class_embedding.defined() ? 1 : 0;
  Tensor tokens = conv1(whole, context, seen.rows).reshape({b, n, w});
  const Tensor& positions = positional_embedding.value;
  const auto before_each = [&](const Tensor& row, const Tensor& rest) {
    return concat({row.reshape({1, 1, w}).expand({b, 1, w}), rest}, 1);
  };
  if (seen.defined()) {
    tokens = add(tokens, index_select(positions.slice(0, first, t), 0, seen.places).reshape({b, n, w}));
    if (first == 1) tokens = before_each(add(class_embedding.value, positions.slice(0, 0, 1)), tokens);
  } else {
    if (first == 1) tokens = before_each(class_embedding.value, tokens);
    tokens = add(tokens, positions);
  }
  tokens = tokens.reshape({b * (n + first), w});
  return ln_pre.has_value() ? (*ln_pre)(tokens, DType::f32) : tokens;
}

// The mean over rows 1, 2, ... of each of B groups of equal size: (B * n, C) -> (B, C)
static Tensor mean_after_first(const Tensor& x, std::int64_t batch) {
  const std::int64_t n = x.size(0) / batch, c = x.size(1);
  return mean(x.reshape({batch, n, c}).slice(1, 1, n), {{1}, false});
}

Tensor VisionTransformer::pool(const Tensor& x, std::int64_t batch, bool only_first, const Context& context) const {
  const DType t = context.activation_dtype();
  const auto first_rows = [&](const Tensor& rows) {
    return only_first ? rows : index_select(rows, 0, equal_offsets(batch, rows.size(0) / batch, rows.device()).starts());
  };
  if (latent_pool.has_value()) return (*latent_pool)(ln_post(x, DType::f32), batch, context);
  if (attn_pool.has_value()) {
    const std::int64_t queries = attn_pool->query.value.size(0);
    if (average_) return mean_after_first(ln_post((*attn_pool)(x, batch, 0, queries, context), DType::f32), batch).to(t);
    if (pooled_last_block) return ln_post((*attn_pool)(x, batch, 0, 1, context), t);
    return first_rows(ln_post((*attn_pool)(x, batch, 0, queries, context), t));
  }
  if (!average_) return ln_post(first_rows(x), t);
  if (final_ln_after_pool_) return ln_post(mean_after_first(x, batch), t);
  return mean_after_first(ln_post(x, DType::f32), batch).to(t);
}

Tensor VisionTransformer::operator()(const Tensor& images, const Context& context, const PatchSelection& patches) const {
  const Scope scope("visual");
  const std::int64_t b = images.size(0);
  const Tensor x = tokens_of(images, context, patches);
  const SequenceOffsets offsets = equal_offsets(b, b > 0 ? x.size(0) / b : 0, x.device());
  const Scope inner("transformer");
  const bool only_first = pooled_last_block && one_token_;
  const Tensor picked = only_first ? offsets.starts() : Tensor{};  // row of each class token
  const Tensor pooled = pool(transformer(x, offsets, false, picked, context), b, only_first, context);
  if (!proj.defined()) return pooled;
  MatmulOptions product;
  product.compute = context.compute;
  product.out = DType::f32;
  return matmul(pooled, proj.rounded_operand(context.compute), product);
}

void VisionTransformer::visit(Visitor& v) {
  v("class_embedding", class_embedding);
  v("positional_embedding", positional_embedding);
  v("proj", proj);
  v("conv1", conv1);
  v("ln_pre", ln_pre);
  v("transformer", transformer);
  v("ln_post", ln_post);
  v("attn_pool", attn_pool);
  v("attn_pool", latent_pool);
}

}  // namespace twinlens
