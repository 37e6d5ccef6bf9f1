#pragma once
// Pre-norm Transformer over ragged rows (Vaswani et al. 2017; OpenAI CLIP model.py ResidualAttentionBlock). Sequences lie back to back
// in the rows of x, so packed captions and dense batches are the same thing.

#include <optional>
#include <vector>

#include "twinlens/nn/layers.h"

namespace twinlens {

// torch.nn.MultiheadAttention's parameters: in_proj_weight (3D, D) with q, k, v stacked, in_proj_bias (3D), out_proj.
struct MultiheadAttention {
  Parameter in_proj_weight, in_proj_bias;
  Linear out_proj;
  int heads = 1;

  MultiheadAttention() = default;
  MultiheadAttention(std::int64_t width, int head_count);  // throws ConfigError when the heads do not divide the width
  // Self-attention of x (N, D) per sequence, plus residual (N, D).
  Tensor operator()(const Tensor& x, const SequenceOffsets& offsets, bool causal, const Tensor& residual, const Context& context) const;
  // Only the rows `picked` (S) of x are queries, one per sequence; residual (S, D). Keys and values are all rows, so with `causal` each
  // must be the last of its sequence: another is a ShapeError on the CPU, and on a card, which is not waited for, sees what it should not.
  Tensor pooled(const Tensor& x, const Tensor& picked, const SequenceOffsets& offsets, bool causal, const Tensor& residual,
                const Context& context) const;
  void visit(Visitor& v);
};

struct Mlp {
  Linear c_fc, c_proj;
  Activation activation = Activation::gelu;

  Mlp() = default;
  Mlp(std::int64_t width, std::int64_t hidden, Activation activation_function);
  Tensor operator()(const Tensor& x, const Tensor& residual, const Context& context) const;
  void visit(Visitor& v);
};

// One learned factor a channel on what a residual branch adds (Touvron et al. 2021, arXiv:2103.17239).
struct LayerScale {
  Parameter gamma;  // (C)

  LayerScale() = default;
  LayerScale(std::int64_t width, double initial);
  Tensor operator()(const Tensor& x) const;  // (N, C) -> (N, C) f32
  void visit(Visitor& v);
};

// An Activation alone stands for the rest as it is in CLIP.
struct BlockOptions {
  BlockOptions(Activation function = Activation::gelu) : activation(function) {}
  Activation activation;
  double eps = 1e-5;
  double layer_scale = 0.0;  // initial value; 0: none
};

// x += ls_1(attn(ln_1(x))); x += ls_2(mlp(ln_2(x))), mostly without the ls.
struct ResidualAttentionBlock {
  LayerNorm ln_1;
  MultiheadAttention attn;
  std::optional<LayerScale> ls_1;
  LayerNorm ln_2;
  Mlp mlp;
  std::optional<LayerScale> ls_2;

  ResidualAttentionBlock() = default;
  ResidualAttentionBlock(std::int64_t width, int heads, std::int64_t hidden, const BlockOptions& options);
  Tensor operator()(const Tensor& x, const SequenceOffsets& offsets, bool causal,
                    const Context& context) const;  // (N, D) f32 -> (N, D) f32
  // The same for the one row of each sequence that is read afterwards, with `causal` its last: (N, D) -> (S, D). Equal numbers, less work.
  Tensor pooled(const Tensor& x, const Tensor& picked, const SequenceOffsets& offsets, bool causal, const Context& context) const;
  void visit(Visitor& v);
};

struct Transformer {
  std::vector<ResidualAttentionBlock> resblocks;

  Transformer() = default;
  Transformer(std::int64_t width, int layers, int heads, std::int64_t hidden, const BlockOptions& options);
  // All blocks. When `picked` is given (one row per sequence, with `causal` its last), the last block computes only those rows:
  // (N, D) -> (S, D).
  Tensor operator()(const Tensor& x, const SequenceOffsets& offsets, bool causal, const Tensor& picked, const Context& context) const;
  void visit(Visitor& v);
};

}  // namespace twinlens
