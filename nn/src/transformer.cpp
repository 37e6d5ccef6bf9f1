#include "twinlens/nn/transformer.h"

#include <string>

#include "twinlens/core/autograd.h"
#include "twinlens/core/check.h"
#include "twinlens/kernels/error.h"
#include "twinlens/kernels/scope.h"

namespace twinlens {

MultiheadAttention::MultiheadAttention(std::int64_t width, int head_count)
    : in_proj_weight(Shape{3 * width, width}), in_proj_bias(Shape{3 * width}), out_proj(width, width), heads(head_count) {
  if (heads < 1 || width % heads != 0) {
    throw ConfigError("MultiheadAttention: a width of " + std::to_string(width) + " has no " + std::to_string(heads) +
                      " heads; its arguments; give heads that divide the width");
  }
}

Tensor MultiheadAttention::operator()(const Tensor& x, const SequenceOffsets& offsets, bool causal, const Tensor& residual,
                                      const Context& context) const {
  LinearOptions product;
  product.compute = context.compute;
  product.out = context.activation_dtype();
  const Tensor qkv = linear(x, in_proj_weight.operand(context.compute), in_proj_bias.value, product);  // (N, 3D)
  AttentionOptions options;
  options.heads = heads;
  options.query_offsets = offsets;
  options.causal = causal;
  return out_proj(attention_qkv(qkv, options), context, Activation::none, residual);  // (N, D)
}

namespace {

// Each query must be a row of its own sequence, and with a causal mask the last one. Indices on a card are not looked at, as in other ops.
void check_picked(const Tensor& picked, const SequenceOffsets& offsets, bool causal) {
  check(picked.rank() == 1 && picked.size(0) == offsets.sequences(), "pooled", "picked must name one row a sequence",
        {{"picked", picked}, {"offsets", offsets.tensor()}});
  if (picked.device().is_cuda()) return;
  const std::vector<std::int64_t> rows = picked.to_ints();
  const std::vector<std::int64_t>& at = offsets.host();
  for (std::size_t s = 0; s < rows.size(); ++s) {
    const std::int64_t first = causal ? at[s + 1] - 1 : at[s];
    if (rows[s] >= first && rows[s] < at[s + 1]) continue;
    fail(ErrorKind::shape, "pooled",
         "picked[" + std::to_string(s) + "] = " + std::to_string(rows[s]) + " must be " +
             (causal ? "the last row of its sequence, which a causal mask lets see all of it," : "a row of its sequence,") + " rows [" +
             std::to_string(at[s]) + "," + std::to_string(at[s + 1]) + ")",
         {{"picked", picked}});
  }
}

}  // namespace

Tensor MultiheadAttention::pooled(const Tensor& x, const Tensor& picked, const SequenceOffsets& offsets, bool causal,
                                  const Tensor& residual, const Context& context) const {
  check_picked(picked, offsets, causal);
  const std::int64_t d = x.size(-1);
  LinearOptions product;
  product.compute = context.compute;
  product.out = context.activation_dtype();
  const Tensor& w = in_proj_weight.operand(context.compute);
  const Tensor& b = in_proj_bias.value;
  const Tensor q = linear(index_select(x, 0, picked), w.slice(0, 0, d), b.slice(0, 0, d), product);  // (S, D)
  const Tensor kv = linear(x, w.slice(0, d, 3 * d), b.slice(0, d, 3 * d), product);                  // (N, 2D)
  AttentionOptions options;
  options.heads = heads;
  options.query_offsets = equal_offsets(picked.count(), 1, x.device());
  options.key_offsets = offsets;
  // One query per sequence. A causal mask aligned to the end lets it see all keys, which is right for the last row.
  options.causal = causal;
  const Tensor y = attention(q, kv.slice(1, 0, d), kv.slice(1, d, 2 * d), options);
  return out_proj(y, context, Activation::none, residual);
}

void MultiheadAttention::visit(Visitor& v) {
  v("in_proj_weight", in_proj_weight);
  v("in_proj_bias", in_proj_bias);
  v("out_proj", out_proj);
}

Mlp::Mlp(std::int64_t width, std::int64_t hidden, Activation activation_function)
    : c_fc(width, hidden), c_proj(hidden, width), activation(activation_function) {}

Tensor Mlp::operator()(const Tensor& x, const Tensor& residual, const Context& context) const {
  return c_proj(c_fc(x, context, activation), context, Activation::none, residual);
}

void Mlp::visit(Visitor& v) {
  v("c_fc", c_fc);
  v("c_proj", c_proj);
}

LayerScale::LayerScale(std::int64_t width, double initial) : gamma(Shape{width}) {
  const NoGrad guard;
  gamma.value.fill_(initial);
}

Tensor LayerScale::operator()(const Tensor& x) const { return mul(x.to(DType::f32), gamma.value); }

void LayerScale::visit(Visitor& v) { v("gamma", gamma); }

ResidualAttentionBlock::ResidualAttentionBlock(std::int64_t width, int heads, std::int64_t hidden, const BlockOptions& options)
    : ln_1(width, options.eps), attn(width, heads), ln_2(width, options.eps), mlp(width, hidden, options.activation) {
  if (options.layer_scale == 0.0) return;
  ls_1 = LayerScale(width, options.layer_scale);
  ls_2 = LayerScale(width, options.layer_scale);
}

namespace {

// The rows x plus what attention gives for them, then the MLP's half. With layer scale the residuals are ops of their own.
template <class Attend>
Tensor both_halves(const ResidualAttentionBlock& block, const Tensor& x, const Attend& attend, const Context& context) {
  const DType t = context.activation_dtype();
  if (!block.ls_1.has_value()) {
    const Tensor h = attend(x);
    return block.mlp(block.ln_2(h, t, context.recompute_cheap), h, context);
  }
  const Tensor h = add(x, (*block.ls_1)(attend({})));
  return add(h, (*block.ls_2)(block.mlp(block.ln_2(h, t, context.recompute_cheap), {}, context)));
}

}  // namespace

Tensor ResidualAttentionBlock::operator()(const Tensor& x, const SequenceOffsets& offsets, bool causal, const Context& context) const {
  const auto attend = [&](const Tensor& residual) {
    return attn(ln_1(x, context.activation_dtype(), context.recompute_cheap), offsets, causal, residual, context);
  };
  return both_halves(*this, x, attend, context);
}

Tensor ResidualAttentionBlock::pooled(const Tensor& x, const Tensor& picked, const SequenceOffsets& offsets, bool causal,
                                      const Context& context) const {
  const auto attend = [&](const Tensor& residual) {
    return attn.pooled(ln_1(x, context.activation_dtype(), context.recompute_cheap), picked, offsets, causal, residual, context);
  };
  return both_halves(*this, index_select(x, 0, picked), attend, context);
}

void ResidualAttentionBlock::visit(Visitor& v) {
  v("ln_1", ln_1);
  v("attn", attn);
  v("ls_1", ls_1);
  v("ln_2", ln_2);
  v("mlp", mlp);
  v("ls_2", ls_2);
}

Transformer::Transformer(std::int64_t width, int layers, int heads, std::int64_t hidden, const BlockOptions& options) {
  for (int i = 0; i < layers; ++i) resblocks.emplace_back(width, heads, hidden, options);
}

Tensor Transformer::operator()(const Tensor& x, const SequenceOffsets& offsets, bool causal, const Tensor& picked,
                               const Context& context) const {
  Tensor h = x;
  for (std::size_t i = 0; i < resblocks.size(); ++i) {
    const Scope scope("resblocks." + std::to_string(i));
    const ResidualAttentionBlock& block = resblocks[i];
    const bool pool = picked.defined() && i + 1 == resblocks.size();
    // By value: with checkpointing the second run happens in backward, when this frame is gone.
    const auto run_block = [&block, offsets, picked, context, causal, pool](const std::vector<Tensor>& in) {
      return pool ? block.pooled(in[0], picked, offsets, causal, context) : block(in[0], offsets, causal, context);
    };
    h = context.checkpoint_blocks ? checkpoint(run_block, {h}) : run_block({h});
  }
  return h;
}

void Transformer::visit(Visitor& v) { v("resblocks", resblocks); }

}  // namespace twinlens
