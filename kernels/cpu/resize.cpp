#include "twinlens/kernels/resize.h"

#include "kernels/cpu/vec/vec.h"

namespace twinlens {
namespace {

constexpr int kBits = 22;
constexpr std::int32_t kHalf = 1 << (kBits - 1);

TWINLENS_INLINE std::uint8_t clip8(std::int32_t v) {
  v >>= kBits;
  return static_cast<std::uint8_t>(v < 0 ? 0 : v > 255 ? 255 : v);
}

// One pixel in four lanes; the fourth is the next pixel's first byte and is thrown away.
typedef std::int32_t Int4 __attribute__((vector_size(16)));
typedef std::uint8_t Byte4 __attribute__((vector_size(4)));

TWINLENS_INLINE Int4 load_pixel(const std::uint8_t* p, std::size_t bytes) {
  Byte4 pixel = {};
  std::memcpy(&pixel, p, bytes);
  return __builtin_convertvector(pixel, Int4);
}

TWINLENS_INLINE void horizontal_row(const ResizeAxis& axis, const std::uint8_t* x, std::int64_t width, std::uint8_t* y) {
  for (std::int64_t i = 0; i < axis.count; ++i) {
    const std::int32_t* w = axis.weights + i * axis.stride;
    const std::int64_t begin = axis.begin[i], taps = axis.taps[i];
    Int4 sum = {kHalf, kHalf, kHalf, 0};
    // The last pixel of the row is read as three bytes: behind it the picture may end.
    const bool at_end = begin + taps == width;
    const std::int64_t safe = at_end ? taps - 1 : taps;
    for (std::int64_t k = 0; k < safe; ++k) sum += load_pixel(x + (begin + k) * 3, 4) * w[k];
    if (at_end) sum += load_pixel(x + (begin + safe) * 3, 3) * w[safe];
    for (int c = 0; c < 3; ++c) y[i * 3 + c] = clip8(sum[c]);
  }
}

// y[j] = sum_k w[k] x[k * stride + j] over a row of `bytes` bytes.
TWINLENS_INLINE void vertical_row(const std::int32_t* w, std::int64_t taps, const std::uint8_t* x, std::int64_t stride, std::int64_t bytes,
                                  std::uint8_t* y) {
  constexpr std::int64_t kBlock = 64;
  for (std::int64_t i = 0; i < bytes; i += kBlock) {
    const std::int64_t n = bytes - i < kBlock ? bytes - i : kBlock;
    std::int32_t sum[kBlock];
    for (std::int64_t j = 0; j < kBlock; ++j) sum[j] = kHalf;
    for (std::int64_t k = 0; k < taps; ++k) {
      const std::uint8_t* row = x + k * stride + i;
      if (n == kBlock) {
        for (std::int64_t j = 0; j < kBlock; ++j) sum[j] += w[k] * row[j];
      } else {
        for (std::int64_t j = 0; j < n; ++j) sum[j] += w[k] * row[j];
      }
    }
    for (std::int64_t j = 0; j < n; ++j) y[i + j] = clip8(sum[j]);
  }
}

}  // namespace

template <class I>
void kernel(I, const Resize& a) {
  const std::int64_t in_bytes = a.x_width * 3, out_bytes = a.horizontal.count * 3;
  const auto vertical = [&](std::int64_t r, const std::uint8_t* x, std::int64_t stride, std::int64_t bytes, std::uint8_t* y) {
    vertical_row(a.vertical.weights + r * a.vertical.stride, a.vertical.taps[r], x, stride, bytes, y);
  };
  if (a.vertical_first) {
    for (std::int64_t r = 0; r < a.vertical.count; ++r) {
      vertical(r, a.x + a.vertical.begin[r] * a.x_stride, a.x_stride, in_bytes, a.scratch + r * in_bytes);
    }
    for (std::int64_t r = 0; r < a.vertical.count; ++r) {
      horizontal_row(a.horizontal, a.scratch + r * in_bytes, a.x_width, a.y + r * out_bytes);
    }
    return;
  }
  for (std::int64_t r = 0; r < a.row_count; ++r) {
    horizontal_row(a.horizontal, a.x + (a.first_row + r) * a.x_stride, a.x_width, a.scratch + r * out_bytes);
  }
  for (std::int64_t r = 0; r < a.vertical.count; ++r) {
    vertical(r, a.scratch + (a.vertical.begin[r] - a.first_row) * out_bytes, out_bytes, out_bytes, a.y + r * out_bytes);
  }
}
template void kernel(TWINLENS_ISA, const Resize&);

}  // namespace twinlens
