#pragma once
// resize: separable resampling of an RGB picture in 8 bits, to the byte what Pillow gives: weights in fixed point with 22 fractional bits,
// two passes with an 8-bit intermediate, so their order shows in the last bit. The weights come from the caller (twinlens/clip/image.h), so
// filter, box, window and mirroring are all in the tables:
//   y[r][c] = clip8((2^21 + sum_k w[k] x[begin + k]) >> 22)   along one axis.
//
// On the CPU one picture is the work of one thread: the kernel starts no others, since the loader works on many pictures at once. On CUDA
// a thread computes a pixel.

#include "twinlens/kernels/run.h"
#include "twinlens/kernels/view.h"

namespace twinlens {

// For each of `count` results along an axis: taps begin[i], ..., begin[i] + taps[i] - 1 with weights[i * stride + k].
struct ResizeAxis {
  const std::int32_t* begin;
  const std::int32_t* taps;
  const std::int32_t* weights;
  std::int64_t count, stride;
};

struct Resize {
  static constexpr const char* kName = "resize";
  static constexpr bool kCuda = true;
  const std::uint8_t* x;  // rows of 3 * x_width bytes, x_stride bytes apart
  std::int64_t x_width, x_stride;
  ResizeAxis horizontal, vertical;
  std::int64_t first_row, row_count;  // rows of x that the vertical axis reads
  bool vertical_first;
  std::uint8_t* scratch;  // vertical first: vertical.count * x_width * 3 bytes, else row_count * horizontal.count * 3
  std::uint8_t* y;        // (vertical.count, horizontal.count, 3), dense
};
template <class I>
void kernel(I, const Resize&);
void launch(Cuda, Stream&, const Resize&);

}  // namespace twinlens
