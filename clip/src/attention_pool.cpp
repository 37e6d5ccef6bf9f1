#include "twinlens/clip/attention_pool.h"

#include <cmath>

#include "twinlens/core/check.h"

namespace twinlens {
namespace {

LinearOptions product_of(const Context& context) {
  LinearOptions product;
  product.compute = context.compute;
  product.out = context.activation_dtype();
  return product;
}

// rows (n, C) once for each of B pictures: (B * n, C)
Tensor repeat_rows(const Tensor& rows, std::int64_t batch) {
  const std::int64_t n = rows.size(0), c = rows.size(1);
  return rows.reshape({1, n, c}).expand({batch, n, c}).reshape({batch * n, c});
}

// torch's trunc_normal_ with JAX's convention: a standard normal cut at 2, then scaled.
constexpr double kCutNormal = 0.87962566103423978;

}  // namespace

AttentionalPooler::AttentionalPooler(std::int64_t width, std::int64_t embed, int head_count, int queries, double eps)
    : query(Shape{queries, embed}),
      ln_q(embed, eps),
      ln_k(width, eps),
      in_proj_bias(Shape{3 * embed}),
      out_proj(embed, embed),
      heads(head_count) {
  if (width == embed) {
    in_proj_weight = Parameter(Shape{3 * embed, embed});
    return;
  }
  q_proj_weight = Parameter(Shape{embed, embed});
  k_proj_weight = Parameter(Shape{embed, width});
  v_proj_weight = Parameter(Shape{embed, width});
}

void AttentionalPooler::initialize(const Initializer& init, const std::string& name) {
  init.normal(query, name + ".query", 1.0);
  const std::pair<Parameter*, const char*> weights[] = {{&in_proj_weight, "in_proj_weight"},
                                                        {&q_proj_weight, "q_proj_weight"},
                                                        {&k_proj_weight, "k_proj_weight"},
                                                        {&v_proj_weight, "v_proj_weight"}};
  for (const auto& [weight, label] : weights) {
    if (!weight->defined()) continue;
    const Tensor& w = weight->value;
    init.uniform(*weight, name + ".attn." + label, std::sqrt(6.0 / static_cast<double>(w.size(0) + w.size(1))));
  }
  init.linear(out_proj, name + ".attn.out_proj");
  init.constant(out_proj.bias, 0.0);
}

Tensor AttentionalPooler::operator()(const Tensor& x, std::int64_t batch, std::int64_t begin, std::int64_t end,
                                     const Context& context) const {
  const DType t = context.activation_dtype();
  const std::int64_t e = query.value.size(1);
  const LinearOptions product = product_of(context);
  const bool joint = in_proj_weight.defined();
  const auto weight = [&](const Parameter& own, std::int64_t third) {
    return joint ? in_proj_weight.operand(context.compute).slice(0, third * e, (third + 1) * e) : own.operand(context.compute);
  };
  const auto bias = [&](std::int64_t third) { return in_proj_bias.value.slice(0, third * e, (third + 1) * e); };
  const Tensor q = linear(ln_q(query.value.slice(0, begin, end), t), weight(q_proj_weight, 0), bias(0), product);  // (n, E)
  const Tensor tokens = ln_k(x, t);                                                                                // (B * T, W)
  const Tensor k = linear(tokens, weight(k_proj_weight, 1), bias(1), product);
  const Tensor v = linear(tokens, weight(v_proj_weight, 2), bias(2), product);
  AttentionOptions options;
  options.heads = heads;
  options.query_offsets = equal_offsets(batch, end - begin, x.device());
  options.key_offsets = equal_offsets(batch, x.size(0) / batch, x.device());
  return out_proj(attention(repeat_rows(q, batch), k, v, options), context).to(DType::f32);
}

void AttentionalPooler::visit(Visitor& v) {
  v("query", query);
  v("attn.in_proj_weight", in_proj_weight);
  v("attn.q_proj_weight", q_proj_weight);
  v("attn.k_proj_weight", k_proj_weight);
  v("attn.v_proj_weight", v_proj_weight);
  v("attn.in_proj_bias", in_proj_bias);
  v("attn.out_proj", out_proj);
  v("ln_q", ln_q);
  v("ln_k", ln_k);
}

LatentPool::LatentPool(std::int64_t width, int head_count, std::int64_t hidden, const BlockOptions& options)
    : latent(Shape{1, 1, width}),
      q(width, width),
      kv(width, 2 * width),
      proj(width, width),
      norm(width, options.eps),
      mlp(width, hidden, options.activation),
      heads(head_count) {}

void LatentPool::initialize(const Initializer& init, const std::string& name) {
  init.normal(latent, name + ".latent", kCutNormal / std::sqrt(static_cast<double>(latent.value.size(2))));
  const std::pair<Linear*, const char*> layers[] = {
      {&q, "q"}, {&kv, "kv"}, {&proj, "proj"}, {&mlp.c_fc, "mlp.c_fc"}, {&mlp.c_proj, "mlp.c_proj"}};
  for (const auto& [layer, label] : layers) init.normal(layer->weight, name + "." + label + ".weight", 0.02);
}

Tensor LatentPool::operator()(const Tensor& x, std::int64_t batch, const Context& context) const {
  const DType t = context.activation_dtype();
  const std::int64_t w = latent.value.size(2);
  const Tensor query = q(latent.value.reshape({1, w}).to(t), context);  // (1, W)
  const Tensor both = kv(x.to(t), context);                             // (B * T, 2W)
  AttentionOptions options;
  options.heads = heads;
  options.query_offsets = equal_offsets(batch, 1, x.device());
  options.key_offsets = equal_offsets(batch, x.size(0) / batch, x.device());
  const Tensor seen = attention(repeat_rows(query, batch), both.slice(1, 0, w), both.slice(1, w, 2 * w), options);  // (B, W)
  const Tensor h = proj(seen, context).to(DType::f32);
  return mlp(norm(h, t), h, context);
}

void LatentPool::visit(Visitor& v) {
  v("latent", latent);
  v("q", q);
  v("kv", kv);
  v("proj", proj);
  v("norm", norm);
  v("mlp", mlp);
}

}  // namespace twinlens
