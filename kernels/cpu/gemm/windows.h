#pragma once
// Windows of an NHWC map read in place: what packing needs of a matrix of windows (conv_geometry.h) is gathered piece by piece into a
// buffer that stays in the first-level cache, so the matrix, kernel size times as large as the map, is never written out.

#include "kernels/cpu/gemm/pack.h"

#include "twinlens/kernels/conv_geometry.h"

namespace twinlens::gemm {

// n elements in blocks of 32 bytes, the last of which overlaps; fewer than a block in moves of falling sizes.
template <class T>
TWINLENS_INLINE void copy_elements(T* to, const T* from, std::int64_t n) {
  constexpr std::int64_t block = 32 / static_cast<std::int64_t>(sizeof(T));
  const auto move = [](T* t, const T* f, std::int64_t count) {
    std::memcpy(static_cast<void*>(t), f, static_cast<std::size_t>(count) * sizeof(T));
  };
  if (n >= block) {
    for (std::int64_t i = 0; i + block <= n; i += block) move(to + i, from + i, block);
    return move(to + n - block, from + n - block, block);
  }
#pragma GCC unroll 4
  for (std::int64_t part = block / 2; part > 0; part /= 2) {
    if ((n & part) == 0) continue;
    move(to, from, part);
    to += part;
    from += part;
  }
}
template <class T>
TWINLENS_INLINE void clear_elements(T* to, std::int64_t n) {
  for (std::int64_t i = 0; i < n; ++i) to[i] = T{};
}

// An output pixel, in the order of rows.
struct WindowPlace {
  std::int64_t b, h, w;
  TWINLENS_INLINE WindowPlace(const ConvGeometry& g, std::int64_t row)
      : b(row / (g.out_height * g.out_width)), h(row / g.out_width % g.out_height), w(row % g.out_width) {}
  TWINLENS_INLINE void next(const ConvGeometry& g) {
    if (++w < g.out_width) return;
    w = 0;
    if (++h < g.out_height) return;
    h = 0;
    ++b;
  }
};

// Columns [begin, end) of the window at `at`. Kernel positions that are neighbours in memory are taken together.
template <class T>
TWINLENS_INLINE void gather_window(const ConvGeometry& g, const T* map, const WindowPlace& at, std::int64_t begin, std::int64_t end,
                                   T* to) {
  const std::int64_t run = g.dilation == 1 ? g.kernel_width : 1, runs_per_row = g.kernel_width / run;  // kernel columns in a run
  const std::int64_t size = run * g.channels;
  for (std::int64_t i = begin / size; i * size < end; ++i) {
    const std::int64_t first = begin > i * size ? begin - i * size : 0, last = end < (i + 1) * size ? end - i * size : size;
    const std::int64_t h = at.h * g.stride - g.padding + i / runs_per_row * g.dilation;
    const std::int64_t w = at.w * g.stride - g.padding + i % runs_per_row * g.dilation;
    // Elements of the run that lie inside of the picture: [low, high).
    std::int64_t low = (w < 0 ? -w : 0) * g.channels, high = (w + run > g.width ? g.width - w : run) * g.channels;
    if (h < 0 || h >= g.height || low > high) low = high = last;
    low = low < first ? first : low > last ? last : low;
    high = high < low ? low : high > last ? last : high;
    clear_elements(to, low - first);
    copy_elements(to + (low - first), map + ((at.b * g.height + h) * g.width + w) * g.channels + low, high - low);
    clear_elements(to + (high - first), last - high);
    to += last - first;
  }
}

// Panels whose lines are windows: rows [line, line + count) of the matrix, columns [depth, depth + depths).
template <class I, class T>
void pack_windows(PackPanel pack, const ConvGeometry& g, const T* map, std::int64_t line, std::int64_t count, std::int64_t depth,
                  std::int64_t depths, std::int64_t depths_per_word, std::int64_t width, float* panel) {
  constexpr std::int64_t kMostLines = 32, kAtOnce = 256;  // lines of a panel of a, columns
  alignas(64) T buffer[kMostLines * kAtOnce];
  for (std::int64_t d = 0; d < depths; d += kAtOnce) {
    const std::int64_t n = depths - d < kAtOnce ? depths - d : kAtOnce;
    WindowPlace at(g, line);
    for (std::int64_t i = 0; i < count; ++i, at.next(g)) gather_window(g, map, at, depth + d, depth + d + n, buffer + i * n);
    pack({buffer, n, 1}, count, n, width, panel + d / depths_per_word * width);
  }
}

// Panels whose lines are columns [line, line + count) of the matrix, and whose depths are windows.
template <class I, class T>
void pack_window_columns(PackPanel pack, const ConvGeometry& g, const T* map, std::int64_t line, std::int64_t count, std::int64_t depth,
                         std::int64_t depths, std::int64_t depths_per_word, std::int64_t width, float* panel) {
  constexpr std::int64_t kAtOnce = 32;  // windows
  alignas(64) T buffer[kAtOnce * kPadding];
  WindowPlace at(g, depth);
  for (std::int64_t d = 0; d < depths; d += kAtOnce) {
    const std::int64_t n = depths - d < kAtOnce ? depths - d : kAtOnce;
    for (std::int64_t i = 0; i < n; ++i, at.next(g)) gather_window(g, map, at, line, line + count, buffer + i * count);
    pack({buffer, 1, count}, count, n, width, panel + d / depths_per_word * width);
  }
}

}  // namespace twinlens::gemm
