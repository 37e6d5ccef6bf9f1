#pragma once
// Batch normalisation (Ioffe & Szegedy 2015, arXiv:1502.03167) of rows (N, C), N = batch * height * width, channel by channel:
//   y = relu?((x - mean) * rstd * gamma + beta + residual),  rstd = 1 / sqrt(var + eps),  var biased.
// Backward with g = dy where the relu let through, xhat = (x - mean) * rstd:
//   dgamma = sum g xhat,  dbeta = sum g,  dresidual = g,
//   dx = gamma rstd (g - dbeta / N - xhat dgamma / N)   with batch statistics,  gamma rstd g   with running ones.
// Sums over rows are taken in blocks of kBatchNormRowsPerBlock, then blocks in order; the variance around each block's own mean, so that
// x is read once.

#include "twinlens/kernels/run.h"
#include "twinlens/kernels/view.h"

namespace twinlens {

inline constexpr std::int64_t kBatchNormRowsPerBlock = 64;

// Rows of C floats that the block sums of one reduction take. Narrow rows may be read up to 64 at a time as one wide row, and the last
// block then has as many parts.
[[gnu::always_inline]] constexpr std::int64_t batch_norm_blocks(std::int64_t rows, std::int64_t channels) {
  return (rows + kBatchNormRowsPerBlock - 1) / kBatchNormRowsPerBlock + (channels < 64 ? 64 : 0);
}

struct BatchNormStatistics {
  static constexpr const char* kName = "batch_norm_statistics";
  static constexpr bool kCuda = true;
  ConstRows x;      // (N, C) float
  float* mean;      // (C)
  float* variance;  // (C), biased
  float* scratch;   // 2 * batch_norm_blocks(N, C) * C
};
template <class I>
void kernel(I, const BatchNormStatistics&);
void launch(Cuda, Stream&, const BatchNormStatistics&);

struct BatchNormForward {
  static constexpr const char* kName = "batch_norm_forward";
  static constexpr bool kCuda = true;
  static constexpr UsesBf16 kBf16 = UsesBf16::rounding;
  ConstRows x, residual;         // (N, C); residual data null when there is none
  const float *mean, *variance;  // (C)
  const float *gamma, *beta;     // (C)
  Rows y;                        // (N, C)
  float eps;
  bool relu;
};
template <class I>
void kernel(I, const BatchNormForward&);
void launch(Cuda, Stream&, const BatchNormForward&);

struct BatchNormBackward {
  static constexpr const char* kName = "batch_norm_backward";
  static constexpr bool kCuda = true;
  static constexpr UsesBf16 kBf16 = UsesBf16::rounding;
  ConstRows x, y, dy;            // (N, C); y of the forward pass, for a relu behind a residual; its data may be null otherwise
  const float *mean, *variance;  // (C)
  const float *gamma, *beta;     // (C)
  Rows dx, dresidual;            // data null when not wanted
  float *dgamma, *dbeta;         // (C), overwritten, always computed
  float* scratch;                // 2 * batch_norm_blocks(N, C) * C
  float eps;
  bool relu, batch_statistics;
};
template <class I>
void kernel(I, const BatchNormBackward&);
void launch(Cuda, Stream&, const BatchNormBackward&);

}  // namespace twinlens
