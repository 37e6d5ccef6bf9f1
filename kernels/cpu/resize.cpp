#include "twinlens/kernels/resize.h"

#include "kernels/cpu/vec/pixel_rows.h"

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

// Pixels begin, ..., begin + 4 * steps - 1 of each row with the weights of one result, of which those that it has no tap for are 0.
struct Window {
  static constexpr std::int64_t kMaxSteps = 64;
  std::int64_t begin, steps;
  bool at_end;  // nothing may be read behind the window
  TapPairs weights[kMaxSteps];
};

// Whether every window of the axis lies in a row of `width` pixels, with room for the bytes that a step reads beside its pixels.
template <class I>
TWINLENS_INLINE bool has_windows(const ResizeAxis& axis, std::int64_t width) {
  std::int64_t most = 0;
  for (std::int64_t i = 0; i < axis.count; ++i) most = axis.taps[i] > most ? axis.taps[i] : most;
  const std::int64_t steps = (most + 3) / 4;
  return steps <= Window::kMaxSteps && 4 * steps + 3 <= width;
}

template <class I>
TWINLENS_INLINE void make_window(const ResizeAxis& axis, std::int64_t i, std::int64_t width, Window& window) {
  const std::int64_t taps = axis.taps[i], steps = (taps + 3) / 4, latest = width - 4 * steps;
  const std::int64_t begin = axis.begin[i] < latest ? axis.begin[i] : latest, shift = axis.begin[i] - begin;
  window.begin = begin;
  window.steps = steps;
  window.at_end = begin + 1 >= latest;
  std::int32_t w[4 * Window::kMaxSteps];
  for (std::int64_t k = 0; k < 4 * steps; k += 4) std::memset(w + k, 0, 4 * sizeof(*w));
  for (std::int64_t k = 0; k < taps; ++k) w[shift + k] = axis.weights[i * axis.stride + k];
  for (std::int64_t s = 0; s < steps; ++s) window.weights[s] = split_weights(w + 4 * s);
}

struct RowBlock {
  const std::uint8_t* x;
  std::int64_t x_stride;
  std::uint8_t* y;
  std::int64_t y_stride, rows;
};

// One result in each row of a block of at least kRows. Steps: window.steps where it is known, else 0.
template <class I, int Steps>
TWINLENS_INLINE void column(const Window& window, const RowBlock& block, std::size_t bytes) {
  using P = PixelRows<I>;
  using Int = typename P::Int;
  const std::int64_t steps = Steps != 0 ? Steps : window.steps;
  const Int first = pair_order<P>(0, window.at_end), second = pair_order<P>(1, window.at_end);
  const std::uint8_t* const x = block.x + 3 * window.begin - (window.at_end ? 4 : 0);
  for (std::int64_t r = 0; r < block.rows; r += P::kRows) {
    const std::int64_t row = r + P::kRows <= block.rows ? r : block.rows - P::kRows;  // the last ones may be made twice
    Int high = {}, low = Int{} + kHalf;
    for (std::int64_t s = 0; s < steps; ++s) {
      const TapPairs& w = window.weights[s];
      const Int pixels = P::load(x + row * block.x_stride + 12 * s, block.x_stride);
      const Int a = P::shuffle(pixels, first), b = P::shuffle(pixels, second);
      high += P::multiply_pairs(a, Int{} + w.high[0]) + P::multiply_pairs(b, Int{} + w.high[1]);
      low += P::multiply_pairs(a, Int{} + w.low[0]) + P::multiply_pairs(b, Int{} + w.low[1]);
    }
    const Int pixel = P::to_bytes(((high << 12) + low) >> kBits);
    for (int k = 0; k < P::kRows; ++k) {
      const std::int32_t four = pixel[4 * k];
      std::memcpy(block.y + (row + k) * block.y_stride, &four, bytes);
    }
  }
}

template <class I>
TWINLENS_INLINE void any_column(const Window& window, const RowBlock& block, std::size_t bytes) {
  switch (window.steps) {
    case 1: return column<I, 1>(window, block, bytes);
    case 2: return column<I, 2>(window, block, bytes);
    case 3: return column<I, 3>(window, block, bytes);
    default: return column<I, 0>(window, block, bytes);
  }
}

// Result by result down blocks of rows, which stay in the nearest cache.
template <class I>
TWINLENS_INLINE void horizontal_columns(const ResizeAxis& axis, const RowBlock& all, std::int64_t width) {
  constexpr std::int64_t kBlock = 128;
  for (std::int64_t r = 0; r < all.rows; r += kBlock) {
    // A block that would be too short begins earlier.
    const std::int64_t left = all.rows - r, begin = left < PixelRows<I>::kRows ? all.rows - PixelRows<I>::kRows : r;
    const std::int64_t rows = all.rows - begin < kBlock ? all.rows - begin : kBlock;
    for (std::int64_t i = 0; i < axis.count; ++i) {
      Window window;
      make_window<I>(axis, i, width, window);
      const RowBlock block{all.x + begin * all.x_stride, all.x_stride, all.y + begin * all.y_stride + 3 * i, all.y_stride, rows};
      // A fourth byte is the next pixel's first, which comes later; the last one has no next.
      if (i + 1 < axis.count) {
        any_column<I>(window, block, 4);
      } else {
        any_column<I>(window, block, 3);
      }
    }
  }
}

template <class I>
TWINLENS_INLINE void horizontal_rows(const ResizeAxis& axis, const RowBlock& all, std::int64_t width) {
  if constexpr (PixelRows<I>::kRows > 0) {
    if (all.rows >= PixelRows<I>::kRows && has_windows<I>(axis, width)) return horizontal_columns<I>(axis, all, width);
  }
  for (std::int64_t r = 0; r < all.rows; ++r) horizontal_row(axis, all.x + r * all.x_stride, width, all.y + r * all.y_stride);
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
    horizontal_rows<I>(a.horizontal, {a.scratch, in_bytes, a.y, out_bytes, a.vertical.count}, a.x_width);
    return;
  }
  horizontal_rows<I>(a.horizontal, {a.x + a.first_row * a.x_stride, a.x_stride, a.scratch, out_bytes, a.row_count}, a.x_width);
  for (std::int64_t r = 0; r < a.vertical.count; ++r) {
    vertical(r, a.scratch + (a.vertical.begin[r] - a.first_row) * out_bytes, out_bytes, out_bytes, a.y + r * out_bytes);
  }
}
template void kernel(TWINLENS_ISA, const Resize&);

}  // namespace twinlens
