#pragma once
// Non-overlapping patches of an NHWC image with three channels, one per row, so that the patch embedding of a vision transformer
// (Dosovitskiy et al. 2021, arXiv:2010.11929) is a plain product with the weight (O, 3, P, P) as checkpoints store it:
//   y[(b, i, j)][(c, r, k)] = scale[c] * x[b][i P + r][j P + k][c] + shift[c].
// Backward, of the rearrangement alone (scale 1, shift 0): each pixel lies in one patch, so dx is dy put back in its place.

#include "twinlens/kernels/run.h"
#include "twinlens/kernels/view.h"

namespace twinlens {

struct PatchifyForward {
  static constexpr const char* kName = "patchify_forward";
  static constexpr bool kCuda = true;
  ConstBuffer x;  // (B, H, W, 3) f32 or u8, dense; H and W multiples of patch
  Rows y;         // (B * H / P * W / P, 3 P P) any float type
  std::int64_t height, width, patch;
  float scale[3], shift[3];
};
template <class I>
void kernel(I, const PatchifyForward&);
void launch(Cuda, Stream&, const PatchifyForward&);

struct PatchifyBackward {
  static constexpr const char* kName = "patchify_backward";
  static constexpr bool kCuda = true;
  ConstRows dy;  // (B * H / P * W / P, 3 P P) any float type
  float* dx;     // (B, H, W, 3)
  std::int64_t height, width, patch;
};
template <class I>
void kernel(I, const PatchifyBackward&);
void launch(Cuda, Stream&, const PatchifyBackward&);

}  // namespace twinlens
