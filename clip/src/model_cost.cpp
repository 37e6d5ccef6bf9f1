#include "twinlens/clip/model_cost.h"

namespace twinlens {
namespace {

using std::int64_t;

struct Sum {
  int64_t parameters = 0;
  double macs = 0.0;

  // `uses`: how often the weight is applied
  void product(int64_t in, int64_t out, double uses, bool bias) {
    parameters += in * out + (bias ? out : 0);
    macs += static_cast<double>(in * out) * uses;
  }
  void norm(int64_t width) { parameters += 2 * width; }
};

void add_blocks(Sum& s, int64_t width, int layers, int64_t hidden, int64_t tokens, bool layer_scale) {
  for (int i = 0; i < layers; ++i) {
    if (layer_scale) s.norm(width);  // as many parameters
    const auto t = static_cast<double>(tokens);
    s.norm(width);
    s.product(width, 3 * width, t, true);
    s.macs += 2.0 * t * t * static_cast<double>(width);
    s.product(width, width, t, true);
    s.norm(width);
    s.product(width, hidden, t, true);
    s.product(hidden, width, t, true);
  }
}

// SigLIP's pooling: one learned query, an MLP.
void add_latent_pool(Sum& s, int64_t w, int64_t hidden, int64_t t) {
  s.parameters += w;
  s.product(w, w, 1.0, true);                         // q
  s.product(w, 2 * w, static_cast<double>(t), true);  // k, v
  s.macs += 2.0 * static_cast<double>(t * w);
  s.product(w, w, 1.0, true);
  s.norm(w);
  s.product(w, hidden, 1.0, true);
  s.product(hidden, w, 1.0, true);
}

// CoCa's: n queries of width e.
void add_attentional_pooler(Sum& s, int64_t w, int64_t e, int64_t n, int64_t t) {
  const auto queries = static_cast<double>(n);
  s.parameters += n * e;
  s.norm(e);
  s.norm(w);
  s.product(e, e, queries, true);
  s.product(w, 2 * e, static_cast<double>(t), true);
  s.macs += 2.0 * queries * static_cast<double>(t * e);
  s.product(e, e, queries, true);
}

Sum vit(const ModelConfig& c) {
  Sum s;
  const VisionConfig& v = c.vision;
  const int64_t w = v.width, patches = static_cast<int64_t>(v.grid()) * v.grid(), t = v.tokens();
  const auto hidden = static_cast<int64_t>(static_cast<double>(w) * v.mlp_ratio);
  s.product(3LL * v.patch_size * v.patch_size, w, static_cast<double>(patches), v.is_siglip());
  s.parameters += (t - patches) * w + t * w;  // class token, positions
  if (!v.no_ln_pre) s.norm(w);
  add_blocks(s, w, v.layers[0], hidden, t, v.ls_init_value != 0.0);
  if (v.is_siglip()) {
    s.norm(w);
    add_latent_pool(s, w, hidden, t);
    return s;
  }
  if (v.attentional_pool) add_attentional_pooler(s, w, c.embed_dim, v.attn_pooler_queries, t);
  const int64_t pooled = v.attentional_pool ? c.embed_dim : w;
  s.norm(pooled);
  s.product(pooled, c.embed_dim, 1.0, false);
  return s;
}

void add_conv(Sum& s, int64_t in, int64_t out, int kernel, int64_t side) {
  s.product(in * kernel * kernel, out, static_cast<double>(side * side), false);
  s.norm(out);  // its batch norm
}

Sum resnet(const ModelConfig& c) {
  Sum s;
  const int64_t w = c.vision.width;
  int64_t side = c.vision.image_size / 2;
  add_conv(s, 3, w / 2, 3, side);
  add_conv(s, w / 2, w / 2, 3, side);
  add_conv(s, w / 2, w, 3, side);
  side /= 2;
  int64_t in = w;
  for (int stage = 0; stage < 4; ++stage) {
    const int64_t planes = w << stage;
    for (int i = 0; i < c.vision.layers[static_cast<std::size_t>(stage)]; ++i) {
      const int stride = stage > 0 && i == 0 ? 2 : 1;
      add_conv(s, in, planes, 1, side);
      add_conv(s, planes, planes, 3, side);
      side /= stride;
      add_conv(s, planes, planes * 4, 1, side);
      if (stride > 1 || in != planes * 4) add_conv(s, in, planes * 4, 1, side);
      in = planes * 4;
    }
  }
  const int64_t t = side * side + 1;
  s.parameters += t * in;
  const auto rows = static_cast<double>(t);
  // Counted as open_clip computes it, with every place as a query; here only the mean is one.
  for (int i = 0; i < 3; ++i) s.product(in, in, rows, true);  // q, k, v
  s.macs += 2.0 * rows * rows * static_cast<double>(in);
  s.product(in, c.embed_dim, rows, true);
  return s;
}

}  // namespace

ModelCost model_cost(const ModelConfig& c) {
  const Sum image = c.vision.is_resnet() ? resnet(c) : vit(c);
  Sum text;
  const int64_t w = c.text.width;
  text.parameters += static_cast<int64_t>(c.text.vocab_size) * w + static_cast<int64_t>(c.text.context_length) * w;
  add_blocks(text, w, c.text.layers, static_cast<int64_t>(static_cast<double>(w) * c.text.mlp_ratio), c.text.context_length,
             c.text.ls_init_value != 0.0);
  text.norm(w);
  text.product(w, c.embed_dim, 1.0, c.text.proj_bias);
  return {image.parameters, text.parameters, image.macs * 2e-9, text.macs * 2e-9, c.init_logit_bias.has_value() ? 2 : 1};
}

}  // namespace twinlens
