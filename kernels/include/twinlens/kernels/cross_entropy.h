#pragma once
// Cross-entropy of softmax over the columns, against one target column per row or against a distribution:
//   hard   loss_r = logsumexp(x_r) - x_rt,                    dx_rj = w dy (p_rj - [j = t])
//   soft   loss_r = sum_j q_rj (logsumexp(x_r) - x_rj),       dx_rj = w dy (p_rj sum_k q_rk - q_rj),  dq_rj = w dy (logsumexp(x_r) - x_rj)
// with p = softmax(x), w = 1 / number of rows that count, loss = w sum_r loss_r.
//
// Nothing of the size of the logits is kept: forward stores two numbers per row, max = max_j x_rj and others = the sum of exp(x_rj - max)
// over the columns but the maximum's own, and backward computes p from the logits again. In these numbers logsumexp - x_rt =
// (max - x_rt) + log1p(others) and p_t - 1 = -others / (1 + others) where t is the maximum: neither value nor gradient cancels when the
// target is all but certain.

#include "twinlens/kernels/run.h"
#include "twinlens/kernels/view.h"

namespace twinlens {

struct CrossEntropyForward {
  static constexpr const char* kName = "cross_entropy_forward";
  static constexpr bool kCuda = true;
  ConstRows logits;             // (N, M) float
  const std::int64_t* targets;  // (N), each in [0, M) or `ignore`
  std::int64_t ignore;          // rows with this target have no loss and no gradient
  float* max;                   // (N)
  float* others;                // (N)
  float* row_loss;              // (N)
  float* loss;                  // (1)
  float* weight;                // (1) w; 0 when no row counts
};
template <class I>
void kernel(I, const CrossEntropyForward&);
void launch(Cuda, Stream&, const CrossEntropyForward&);

struct CrossEntropyBackward {
  static constexpr const char* kName = "cross_entropy_backward";
  static constexpr bool kCuda = true;
  ConstRows logits;
  const std::int64_t* targets;
  std::int64_t ignore;
  const float* max;
  const float* others;
  const float* weight;
  const float* dy;  // (1)
  Rows dlogits;     // (N, M), dtype of the logits
};
template <class I>
void kernel(I, const CrossEntropyBackward&);
void launch(Cuda, Stream&, const CrossEntropyBackward&);

struct SoftCrossEntropyForward {
  static constexpr const char* kName = "soft_cross_entropy_forward";
  static constexpr bool kCuda = true;
  ConstRows logits;   // (N, M) float
  ConstRows targets;  // (N, M) f32; a target of exactly 0 ignores its logit, -inf too
  float* max;         // (N)
  float* others;      // (N)
  float* row_loss;    // (N)
  float* loss;        // (1)
  float* weight;      // (1)
};
template <class I>
void kernel(I, const SoftCrossEntropyForward&);
void launch(Cuda, Stream&, const SoftCrossEntropyForward&);

struct SoftCrossEntropyBackward {
  static constexpr const char* kName = "soft_cross_entropy_backward";
  static constexpr bool kCuda = true;
  ConstRows logits, targets;
  const float* max;
  const float* others;
  const float* weight;
  const float* dy;  // (1)
  Rows dlogits;     // (N, M), dtype of the logits; data null when nobody wants it
  Rows dtargets;    // (N, M) f32; data null when nobody wants it
};
template <class I>
void kernel(I, const SoftCrossEntropyBackward&);
void launch(Cuda, Stream&, const SoftCrossEntropyBackward&);

}  // namespace twinlens
