#pragma once
// Every op. Each checks its arguments (ShapeError, DTypeError, DeviceError name the op, the rule and the tensors), runs its kernel and,
// when a gradient is wanted, records its node. Results are new dense tensors on the device of the inputs; dropout with p = 0 and sum_to an
// equal shape return x itself.
//
// dtypes: "float" means f32 or bf16 (f16 on CUDA). Inputs of one op have one dtype unless said otherwise; there is no silent promotion.
// Math and accumulation are in f32 at least. Gradients of f32 leaves (parameters) are f32.
//
// Sizes: B batch, T tokens, C channels, H heads, D head dim, N M K matrices, (H W) image height and width.

#include <cstdint>
#include <functional>
#include <optional>
#include <utility>
#include <vector>

#include "twinlens/core/random.h"
#include "twinlens/core/sequence_offsets.h"
#include "twinlens/core/tensor.h"
#include "twinlens/kernels/activation.h"
#include "twinlens/kernels/compute.h"

namespace twinlens {

// --- elementwise, one argument (core/src/ops/unary.cpp) --------------------------------------------------------------------------------
Tensor neg(const Tensor& x);
Tensor abs(const Tensor& x);
Tensor exp(const Tensor& x);
Tensor log(const Tensor& x);
Tensor sqrt(const Tensor& x);
Tensor square(const Tensor& x);
Tensor tanh(const Tensor& x);
Tensor sigmoid(const Tensor& x);
Tensor log_sigmoid(const Tensor& x);  // -log(1 + e^-x), exact for large |x|
Tensor silu(const Tensor& x);         // x sigmoid(x)
Tensor relu(const Tensor& x);
Tensor gelu(const Tensor& x);        // x (1 + erf(x / sqrt 2)) / 2; Hendrycks & Gimpel 2016, arXiv:1606.08415
Tensor gelu_tanh(const Tensor& x);   // its tanh form
Tensor quick_gelu(const Tensor& x);  // x sigmoid(1.702 x), OpenAI's CLIP
Tensor clamp(const Tensor& x, double low, double high);
// y = scale * x + shift
Tensor affine(const Tensor& x, double scale, double shift);

// --- elementwise, two arguments with NumPy broadcasting (binary.cpp) ---------------------------------------------------------------------
Tensor add(const Tensor& a, const Tensor& b);
Tensor sub(const Tensor& a, const Tensor& b);
Tensor mul(const Tensor& a, const Tensor& b);
Tensor div(const Tensor& a, const Tensor& b);
Tensor maximum(const Tensor& a, const Tensor& b);  // gradient to the larger; halves where equal, all to both where one is NaN
Tensor minimum(const Tensor& a, const Tensor& b);
// Comparisons of equal dtypes (any) give a bool tensor, never recorded.
Tensor equal(const Tensor& a, const Tensor& b);
Tensor less(const Tensor& a, const Tensor& b);
// mask (bool) ? a : b, all three broadcast.
Tensor where(const Tensor& mask, const Tensor& a, const Tensor& b);
Tensor masked_fill(const Tensor& x, const Tensor& mask, double value);

// --- reductions (reduce.cpp): dims may be negative; keep leaves size 1; an empty list means all ------------------------------------------
struct Reduce {
  std::vector<int> dims{};
  bool keep = false;
};
Tensor sum(const Tensor& x, const Reduce& over = {});
Tensor mean(const Tensor& x, const Reduce& over = {});
// Sum of x over the dimensions by which `shape` was broadcast to x.shape(): the gradient of broadcasting. x itself if the shapes are equal.
Tensor sum_to(const Tensor& x, const Shape& shape);
// sqrt of the sum of squares of all elements, accumulated in f64 in a fixed order. f32 scalar, never recorded.
Tensor norm2(const Tensor& x);
// Number of elements that are NaN or infinite. i64 scalar, never recorded.
Tensor count_nonfinite(const Tensor& x);

// --- rows: everything over the last dimension (softmax.cpp, l2_normalize.cpp, layer_norm.cpp, cross_entropy.cpp) -------------------------
Tensor softmax(const Tensor& x);
Tensor log_softmax(const Tensor& x);
// x / max(|x|_2, eps), as torch.nn.functional.normalize
Tensor l2_normalize(const Tensor& x, double eps = 1e-12);
// Ba et al. 2016. gamma, beta (C) f32 or absent; x float; the result has dtype `out` (that of x when not given). With `recompute` the next
// op does not keep the result for backward: it is computed again from x, which is kept anyway (the same bits).
Tensor layer_norm(const Tensor& x, const Tensor& gamma, const Tensor& beta, double eps = 1e-5, std::optional<DType> out = {},
                  bool recompute = false);
// Mean over rows of -log softmax(logits)[target]; targets (N) i64; rows whose target is `ignore` do not count, and
// the loss of no rows is 0. Scalar f32; keeps its relative accuracy when every target is all but certain.
Tensor cross_entropy(const Tensor& logits, const Tensor& targets, std::int64_t ignore = -100);
// Mean over rows of -sum_j target_j log softmax(logits)_j; targets (N, M) f32 with rows that sum to 1; they may
// want a gradient too. Scalar f32.
Tensor soft_cross_entropy(const Tensor& logits, const Tensor& targets);

// --- selection (index.cpp, topk.cpp, concat.cpp); indices are i64 and checked on the CPU -------------------------------------------------
// Row ids[i] of table (V, C), a parameter or its shadow; ids any shape -> shape + (C). Gradient by deterministic scatter.
Tensor embedding(const Tensor& table, const Tensor& ids);
// Slices indices[i] of dimension dim; x of any dtype; the gradient adds where an index repeats.
Tensor index_select(const Tensor& x, int dim, const Tensor& indices);
// y = x with y[indices[i]] += source[i] along dimension 0, in the order of i.
Tensor scatter_add(const Tensor& x, const Tensor& indices, const Tensor& source);
// Over the last dimension, which must not be empty; x float or i64 (token ids); the first of equals, NaN above all. i64, never recorded.
Tensor argmax(const Tensor& x);
struct TopK {
  Tensor values;   // (..., k), largest first; equals by lower index
  Tensor indices;  // (..., k) i64
};
TopK topk(const Tensor& x, int k);  // over the last dimension; values have a gradient
struct Max {
  Tensor values, indices;  // x without dimension dim, or with size 1 there; indices i64
};
// Largest elements along a dimension, which must not be empty: the first of equals, which also gets the gradient; NaN above all.
Max max(const Tensor& x, int dim, bool keep = false);
Tensor concat(const std::vector<Tensor>& parts, int dim);  // any dtype, the same in all parts

// --- contrastive losses without the N x N logits (info_nce.cpp, sigmoid_loss.cpp) --------------------------------------------------------
// What ranks exchange in the middle of info_nce. Empty functions: there is one rank.
struct InfoNceRanks {
  std::function<Tensor(const Tensor& own)> gather{};  // (n) -> (N), in rank order
  // Both (N), in place. In: this rank's column max and sum (max_r, sum_r). Out: max over ranks, sum over ranks of sum_r e^(max_r - max).
  std::function<void(Tensor& max, Tensor& sum)> merge_columns{};
};
struct InfoNceOptions {
  std::int64_t offset = 0;         // row i's own column is i + offset
  Tensor row_ids{}, column_ids{};  // (n), (N) i64, or absent: other columns with the row's id are left out
  // Given all three: the targets are the softmax of these features' logits, in both directions, instead of the own pairs
  // (distillation; no gradient for the teacher).
  Tensor teacher_rows{}, teacher_columns{}, teacher_logit_scale{};
  InfoNceRanks ranks{};
  // Memory is that of a few tiles; other sizes give other roundings. 0: 1536 x 1536 on the CPU, 4096 x 4096 on CUDA.
  std::int64_t tile_rows = 0, tile_columns = 0;
};
// The symmetric InfoNCE of unit features: rows (n, d), columns (N, d) f32, logit_scale (1 element f32, the logarithm) -> scalar f32,
//   sum_i [logsumexp_j S_ij - S_i,own + logsumexp_j S_j,own - S_i,own] / 2n,   S = e^logit_scale rows columns^T,
// where the second log-sum-exp is over the rows of all ranks. Extra memory O(n + N) and a few tiles, 2 n N d FLOPs forward and 6 n N d
// backward; the gradient of `columns` is this rank's share. The loss keeps its relative accuracy when the pairs match. Backward checks
// that the gradient of the logits sums to 0 and that both forms of the scale's gradient agree: NumericError when not (on CUDA, which is
// not waited for, the scale's gradient becomes NaN).
Tensor info_nce(const Tensor& rows, const Tensor& columns, const Tensor& logit_scale, const InfoNceOptions& options = {});
// SigLIP's loss (Zhai et al. 2023, arXiv:2303.15343): -sum_ij log sigmoid(y_ij (S_ij + bias)) / n with y = 1 for own pairs, -1 for others.
// The same frame; options.teacher_* and options.ranks are not for it (a rank's rows need nothing of other ranks but `columns`).
Tensor sigmoid_loss(const Tensor& rows, const Tensor& columns, const Tensor& logit_scale, const Tensor& logit_bias,
                    const InfoNceOptions& options = {});

// --- products (matmul.cpp, linear.cpp) --------------------------------------------------------------------------------------------------
// `compute` says what a product is computed in (twinlens/kernels/compute.h).
struct MatmulOptions {
  bool transpose_a = false;  // of the last two dimensions
  bool transpose_b = false;
  double alpha = 1.0;
  std::optional<DType> out{};       // dtype of the result; that of a when not given
  Compute compute = Compute::fp32;  // bf16 inputs imply bf16, f16 inputs f16
};
// alpha * op(a) op(b): (..., N, K) (..., K, M) -> (..., N, M); leading dimensions equal or absent in one of them.
Tensor matmul(const Tensor& a, const Tensor& b, const MatmulOptions& options = {});

struct LinearOptions {
  Activation activation = Activation::none;
  Tensor residual;                  // added after the activation; shape of the result
  std::optional<DType> out{};       // dtype of the result; that of residual, else of x
  Compute compute = Compute::fp32;  // bf16 inputs imply bf16, f16 inputs f16
  bool recompute = false;           // with an activation and no residual: in backward the result is computed again from the argument of
                                    // the activation, which is kept anyway (in bf16 and f16 rounded), instead of kept by the next op
};
// activation(x w^T + bias) + residual with the epilogue fused into the product: x (..., K), w (M, K), bias (M) f32 or absent
// -> (..., M). x and w may differ in dtype (f32 with bf16): the product is then computed in bf16.
Tensor linear(const Tensor& x, const Tensor& w, const Tensor& bias, const LinearOptions& options = {});

// --- attention (attention.cpp) ----------------------------------------------------------------------------------------------------------
// softmax(q k^T / sqrt(D) + mask) v per sequence and head (Vaswani et al. 2017, arXiv:1706.03762). Sequences lie back to back in the
// rows: sequence s has query rows [query_offsets[s], query_offsets[s+1]) and key/value rows [key_offsets[s], key_offsets[s+1]).
struct AttentionOptions {
  int heads = 1;
  SequenceOffsets query_offsets{};  // on the device of q
  SequenceOffsets key_offsets{};    // absent means query_offsets
  bool causal = false;              // query i of Tq sees keys j <= i + (Tk - Tq): aligned to the end of the keys
  Tensor bias{};       // (H or 1, Tq, Tk) f32, added to every sequence's scores; sequences of equal length only; no gradient. Optional
  double scale = 0.0;  // 0 means 1 / sqrt(D)
};
// q (Nq, H*D), k (Nk, H*D), v (Nk, H*D) -> (Nq, H*D). Rows may be strided views (thirds of a qkv product). A query that sees no key (no
// keys, causal with more queries than keys, a bias of -inf throughout) gives 0 and has no gradient, where PyTorch gives NaN.
Tensor attention(const Tensor& q, const Tensor& k, const Tensor& v, const AttentionOptions& options);
// Self-attention on a joint projection: qkv (N, 3*H*D) with q, k, v side by side. One gradient tensor, no slicing.
Tensor attention_qkv(const Tensor& qkv, const AttentionOptions& options);

// --- images: NHWC in memory (conv2d.cpp, pool2d.cpp, batch_norm.cpp, upsample.cpp, patchify.cpp) -----------------------------------------
struct ConvOptions {
  int stride = 1, padding = 0, dilation = 1, groups = 1;
  Compute compute = Compute::fp32;
  std::optional<DType> out{};
  bool windows_in_memory = false;  // the plain form: the matrix of windows is written out (im2col), then multiplied
};
// x (B, H, W, C); w (O, C / groups, kh, kw) as checkpoints store it; bias (O) f32 or absent -> (B, H', W', O),
// H' = (H + 2 padding - dilation (kh - 1) - 1) / stride + 1.
Tensor conv2d(const Tensor& x, const Tensor& w, const Tensor& bias, const ConvOptions& options = {});
struct ConvTransposeOptions {
  int stride = 1, padding = 0, output_padding = 0, dilation = 1, groups = 1;
  Compute compute = Compute::fp32;
};
// The map of conv2d's gradient: x (B, H, W, C); w (C, O / groups, kh, kw) as checkpoints store it; bias (O) f32 or absent
// -> (B, H', W', O), H' = (H - 1) stride - 2 padding + dilation (kh - 1) + output_padding + 1.
Tensor conv_transpose2d(const Tensor& x, const Tensor& w, const Tensor& bias, const ConvTransposeOptions& options = {});
// Windows kernel x kernel with the given stride, no padding; the average counts window elements. Odd rims are dropped.
Tensor avg_pool2d(const Tensor& x, int kernel, int stride);
Tensor max_pool2d(const Tensor& x, int kernel, int stride, int padding = 0);  // gradient to the first largest
Tensor upsample_nearest(const Tensor& x, int factor);

struct BatchNormOptions {
  bool training = false;
  double eps = 1e-5;
  double momentum = 0.1;       // running = (1 - momentum) running + momentum batch (unbiased variance), as PyTorch
  bool update_running = true;  // off in the second pass of cached-feature accumulation
  bool relu = false;           // fused max(0, y)
  Tensor residual;             // added before the relu; shape of x
  std::optional<DType> out;
};
// Ioffe & Szegedy 2015, arXiv:1502.03167, over all but the last dimension: x (..., C); gamma, beta, running (C) f32.
// running_mean and running_var are written in place in training mode.
Tensor batch_norm(const Tensor& x, const Tensor& gamma, const Tensor& beta, Tensor& running_mean, Tensor& running_var,
                  const BatchNormOptions& options = {});

// Non-overlapping patches as rows: x (B, H, W, 3) f32 or u8 -> (B * H / patch * W / patch, 3 * patch * patch) in the order (channel, row,
// column) of a convolution weight (O, 3, patch, patch). u8 pixels are divided by 255 and normalised with mean and std. No gradient for u8.
struct PatchifyOptions {
  int patch = 16;
  float mean[3] = {0, 0, 0};
  float std[3] = {1, 1, 1};
  DType out = DType::f32;
};
Tensor patchify(const Tensor& x, const PatchifyOptions& options);

// --- random (dropout.cpp, sample.cpp) ---------------------------------------------------------------------------------------------------
// Zeroes each element with probability p and scales the rest by 1 / (1 - p). x (rows, ..., C): rows are the leading dimension.
// p = 0 returns x.
Tensor dropout(const Tensor& x, double p, const RandomKey& key, const RowIds& ids = {});
// One index a row of weights (..., C): i with probability weight_i / sum of the row; weights >= 0 that are not all 0. i64 (...), never
// recorded. ids are one a row of the collapsed leading dimensions.
Tensor sample(const Tensor& weights, const RandomKey& key, const RowIds& ids = {});
// The same with probability softmax(logits)_i; -inf is never drawn.
Tensor sample_logits(const Tensor& logits, const RandomKey& key, const RowIds& ids = {});

}  // namespace twinlens
