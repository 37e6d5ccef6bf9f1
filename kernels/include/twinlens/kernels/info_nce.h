#pragma once
// The symmetric InfoNCE loss and SigLIP's sigmoid loss, tile by tile: the (n, N) logits are never there at once. core/src/ops/info_nce.cpp
// makes a tile of cosines <u_i, v_j> with a product and hands it to these kernels; what they leave in its place feeds the next products.
//
// Rows are n pairs of this rank, u (n, d); columns are all N pairs, v (N, d); row i's own column is i + offset. With s = exp(logit scale)
// and S_ij = s <u_i, v_j>, everything is kept relative to the own pair, a_i = S_i,i+offset, which is never subtracted from a sum that
// contains it (Radford et al. 2021, arXiv:2103.00020; online log-sum-exp: Milakov & Gimelshein 2018, arXiv:1805.02867):
//   z_i = log sum_{j != own} exp(S_ij - a_i)          loss_i = log(1 + e^z_i)
//   p_ij = exp(S_ij - a_i - loss_i)                   1 - p_i,own = 1 - e^-loss_i
// (computed as exp(S_ij - shift_i) factor_i with a + loss = shift - log(factor), so that one subtraction is rounded)
// and the same down the columns with q_ij. L = sum(loss_i over rows) / 2n + sum(loss_j over own columns) / 2n,
//   G_ij = dL/dS_ij = (p_ij + q_ij) / 2n for others, G_i,own = -((1 - p_i,own) + (1 - q_own)) / 2n.
// However nearly the pairs match, neither value nor gradient is a difference of numbers that are almost equal.
//
// a is computed in double and kept as two floats, high + low. z is kept as (max, sum): z = (max - low) + log(sum), max relative to high.
// Statistics start as max = kNothing, sum = 0. Rows of a tile are reduced by lanes, columns in blocks of rows, tiles in order: the bits
// do not depend on the number of threads.
//
// A column whose id is the row's is left out, p = q = 0: equal captions that are not to be pushed apart (docs/decisions/0003).
// With a teacher (logits T from other features) the targets are its softmax instead of the own pair, in both directions
// (open_clip's DistillClipLoss): loss_i + sum_j t_ij (a_i - S_ij), and G_ij = (p_ij - t_ij + q_ij - t'_ij) / 2n.

#include "twinlens/kernels/run.h"
#include "twinlens/kernels/view.h"

namespace twinlens {

struct InfoNceTile {
  static constexpr float kNothing = -1e29F;  // the max of no column; logits that are left out are taken as -1e30
  Rows logits;                               // (R, C) f32, cosines; the kernels write over them
  std::int64_t first_row = 0, first_column = 0;
  std::int64_t offset = 0;
  const float* logit_scale = nullptr;  // (1)
  const std::int64_t* row_ids = nullptr;
  const std::int64_t* column_ids = nullptr;  // (n) and (N), or both null
};

// Per row (n) or per column (N).
struct InfoNceOwn {
  const float* high = nullptr;
  const float* low = nullptr;
};
// p_ij = exp(S_ij - shift_i) factor_i, and loss_i.
struct InfoNceSoftmax {
  float* shift = nullptr;
  float* factor = nullptr;
  float* loss = nullptr;
};
struct InfoNceSums {
  float* max = nullptr;
  float* sum = nullptr;
};

// Of a teacher: its tile of cosines, and what was computed of it before.
struct InfoNceTeacher {
  Rows logits;  // (R, C) f32; data null when there is none
  const float* logit_scale = nullptr;
  InfoNceSoftmax rows, columns;
};

// a_i = s <u_i, v_i+offset>
struct InfoNceDiagonal {
  static constexpr const char* kName = "info_nce_diagonal";
  static constexpr bool kCuda = true;
  ConstRows rows, columns;  // (n, d), (N, d) f32
  std::int64_t offset;
  const float* logit_scale;  // (1)
  float* high;               // (n)
  float* low;                // (n)
};
template <class I>
void kernel(I, const InfoNceDiagonal&);
void launch(Cuda, Stream&, const InfoNceDiagonal&);

// Adds a tile to the statistics. Its logits become scaled ones.
struct InfoNceStatistics {
  static constexpr const char* kName = "info_nce_statistics";
  static constexpr bool kCuda = true;
  InfoNceTile tile;
  InfoNceOwn row_own, column_own;
  InfoNceSums rows, columns;
  InfoNceTeacher teacher;
  float* row_cross = nullptr;     // (n) sum_j t_ij (a_i - S_ij), with a teacher
  float* column_cross = nullptr;  // (N)
};
template <class I>
void kernel(I, const InfoNceStatistics&);
void launch(Cuda, Stream&, const InfoNceStatistics&);

// From statistics to losses, per row and column and in all.
struct InfoNceLoss {
  static constexpr const char* kName = "info_nce_loss";
  static constexpr bool kCuda = true;
  std::int64_t row_count, column_count, offset;
  InfoNceOwn row_own, column_own;
  InfoNceSums rows, columns;  // read
  const float* row_cross;     // null without a teacher
  const float* column_cross;
  InfoNceSoftmax row_softmax, column_softmax;  // written
  float* loss;                                 // (1)
};
template <class I>
void kernel(I, const InfoNceLoss&);
void launch(Cuda, Stream&, const InfoNceLoss&);

// A tile of s dy G in place of its cosines, and the row's share of three sums.
struct InfoNceGradient {
  static constexpr const char* kName = "info_nce_gradient";
  static constexpr bool kCuda = true;
  InfoNceTile tile;
  InfoNceOwn row_own, column_own;
  InfoNceSoftmax rows, columns;
  InfoNceTeacher teacher;
  float weight;      // 1 / 2n
  const float* dy;   // (1)
  double* row_sums;  // (n, 4), added to: of p - t and of q - t' over others, and of dL/d(logit scale) before weight and dy; the last is free
};
template <class I>
void kernel(I, const InfoNceGradient&);
void launch(Cuda, Stream&, const InfoNceGradient&);

// After the last tile: dL/d(logit scale), and two identities that hold in real arithmetic. (The second needs all columns' rows, n = N.)
//   identities[0] = sum of G over everything (n = N) or over the row half, divided by the sum of its absolute values or so
//   identities[1] = |sum_i <u_i, dU_i> - dL/d(logit scale)|, divided by the size of its terms
// Where `poison` is set and one of them is above kBroken, the gradient of the logit scale becomes NaN: a device that must not be waited
// for tells it that way.
struct InfoNceFinish {
  static constexpr const char* kName = "info_nce_finish";
  static constexpr bool kCuda = true;
  static constexpr double kBroken = 1e-3;
  ConstRows rows, drows;  // u and its gradient (n, d) f32; drows.data null when it was not wanted
  std::int64_t column_count, offset;
  const float* logit_scale;
  const float* row_loss;
  const float* column_loss;
  const float* teacher_row_loss;  // null without a teacher
  const float* teacher_column_loss;
  float weight;
  const float* dy;
  double* row_sums;  // (n, 4); the last becomes <u_i, dU_i>
  bool poison;
  float* dlogit_scale;  // (1)
  double* identities;   // (2)
};
template <class I>
void kernel(I, const InfoNceFinish&);
void launch(Cuda, Stream&, const InfoNceFinish&);

// SigLIP (Zhai et al. 2023, arXiv:2303.15343): x_ij = S_ij + bias, L = (sum_own softplus(-x) + sum_others softplus(x)) / n, so there are no
// statistics and one sweep gives value and gradients. The tile becomes s G; row_sums (n, 3) take the row's share of n L, n dL/dbias and
// n dL/d(logit scale).
struct SigmoidLossTile {
  static constexpr const char* kName = "sigmoid_loss_tile";
  static constexpr bool kCuda = true;
  InfoNceTile tile;
  const float* logit_bias;  // (1)
  float weight;             // 1 / n
  double* row_sums;         // (n, 3), added to
};
template <class I>
void kernel(I, const SigmoidLossTile&);
void launch(Cuda, Stream&, const SigmoidLossTile&);

// out[k] = weight * sum over i of row_sums[i][k], k < 3
struct SigmoidLossFinish {
  static constexpr const char* kName = "sigmoid_loss_finish";
  static constexpr bool kCuda = true;
  std::int64_t row_count;
  float weight;
  const double* row_sums;
  float* out[3];
};
template <class I>
void kernel(I, const SigmoidLossFinish&);
void launch(Cuda, Stream&, const SigmoidLossFinish&);

}  // namespace twinlens
