#pragma once
// Layer normalisation (Ba et al. 2016, arXiv:1607.06450) over the last dimension:
//   y = (x - mean) * rstd * gamma + beta,  rstd = 1 / sqrt(var + eps),  var = mean((x - mean)^2).
// Backward, with xhat = (x - mean) * rstd and g = dy * gamma:
//   dx = rstd * (g - mean(g) - xhat * mean(g * xhat)),  dgamma = sum dy * xhat,  dbeta = sum dy   (sums over rows, fixed order).

#include "twinlens/kernels/run.h"
#include "twinlens/kernels/view.h"

namespace twinlens {

struct LayerNormForward {
  static constexpr const char* kName = "layer_norm_forward";
  static constexpr bool kCuda = true;
  static constexpr UsesBf16 kBf16 = UsesBf16::rounding;
  ConstRows x;         // (N, C) any float type
  const float* gamma;  // (C), null means 1
  const float* beta;   // (C), null means 0
  Rows y;              // (N, C) any float type
  float* mean;         // (N)
  float* rstd;         // (N)
  float eps;
};
template <class I>
void kernel(I, const LayerNormForward&);
void launch(Cuda, Stream&, const LayerNormForward&);

struct LayerNormBackward {
  static constexpr const char* kName = "layer_norm_backward";
  static constexpr bool kCuda = true;
  static constexpr UsesBf16 kBf16 = UsesBf16::rounding;
  // Rows are reduced in blocks of kRowsPerBlock, then blocks in order: the same bits for any thread count.
  static constexpr std::int64_t kRowsPerBlock = 32;
  ConstRows x, dy;     // (N, C)
  const float* gamma;  // (C) or null
  const float* mean;   // (N)
  const float* rstd;   // (N)
  Rows dx;             // (N, C); data null when nobody wants it
  float* dgamma;       // (C) or null; overwritten
  float* dbeta;        // (C) or null; overwritten
  float* scratch;      // 2 * ceil(N / kRowsPerBlock) * C floats when dgamma or dbeta is wanted
};
template <class I>
void kernel(I, const LayerNormBackward&);
void launch(Cuda, Stream&, const LayerNormBackward&);

}  // namespace twinlens
