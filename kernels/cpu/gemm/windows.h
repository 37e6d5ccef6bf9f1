#pragma once
// Windows of an NHWC map read in place: what packing needs of a matrix of windows (conv_geometry.h) is gathered piece by piece into a
// buffer that stays in the first-level cache, so the matrix, kernel size times as large as the map, is never written out. Tile registers
// read rows as they are gathered.

#include "kernels/cpu/gemm/pack.h"
#include "kernels/cpu/gemm/plan.h"

#include "twinlens/kernels/conv_geometry.h"

namespace twinlens::gemm {

// n elements in blocks of 32 bytes, the last of which overlaps.
template <class I, class T>
TWINLENS_INLINE void copy_elements(T* to, const T* from, std::int64_t n) {
  constexpr int block = 32 / static_cast<int>(sizeof(T));
  if (n < block) return Vec<I>::template copy_fewer<block / 2>(to, from, n);
  for (std::int64_t i = 0; i + block <= n; i += block) std::memcpy(static_cast<void*>(to + i), from + i, 32);
  std::memcpy(static_cast<void*>(to + n - block), from + n - block, 32);
}
template <class T>
TWINLENS_INLINE void clear_elements(T* to, std::int64_t n) {
  if (n > 0) std::memset(static_cast<void*>(to), 0, static_cast<std::size_t>(n) * sizeof(T));
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
template <class I, class T>
TWINLENS_INLINE void gather_window(const ConvGeometry& g, const T* map, const WindowPlace& at, std::int64_t begin, std::int64_t end,
                                   T* to) {
  const std::int64_t run = g.dilation == 1 ? g.kernel_width : 1, runs_per_row = g.kernel_width / run;  // kernel columns in a run
  const std::int64_t size = run * g.channels;
  const std::int64_t first_run = begin == 0 ? 0 : begin / size;
  std::int64_t row = first_run / runs_per_row, column = first_run % runs_per_row;  // of the kernel, in runs
  for (std::int64_t start = first_run * size; start < end; start += size) {
    const std::int64_t first = begin > start ? begin - start : 0, last = end < start + size ? end - start : size;
    const std::int64_t h = at.h * g.stride - g.padding + row * g.dilation;
    const std::int64_t w = at.w * g.stride - g.padding + column * g.dilation;
    if (++column == runs_per_row) {
      column = 0;
      ++row;
    }
    const T* from = map + ((at.b * g.height + h) * g.width + w) * g.channels;
    if (h >= 0 && h < g.height && w >= 0 && w + run <= g.width) {
      copy_elements<I>(to, from + first, last - first);
    } else {
      // Elements of the run that lie inside of the picture: [low, high).
      std::int64_t low = (w < 0 ? -w : 0) * g.channels, high = (w + run > g.width ? g.width - w : run) * g.channels;
      if (h < 0 || h >= g.height || low > high) low = high = last;
      low = low < first ? first : low > last ? last : low;
      high = high < low ? low : high > last ? last : high;
      clear_elements(to, low - first);
      if (high > low) copy_elements<I>(to + (low - first), from + low, high - low);
      clear_elements(to + (high - first), last - high);
    }
    to += last - first;
  }
}

// Panels whose lines are windows: rows [line, line + count) of the matrix, columns [depth, depth + depths).
template <class I, class T>
void pack_windows(PackPanel pack, const ConvGeometry& g, const T* map, std::int64_t line, std::int64_t count, std::int64_t depth,
                  std::int64_t depths, Steps steps, std::int64_t width, float* panel) {
  constexpr std::int64_t kAtOnce = 256;  // columns
  alignas(64) T buffer[kPadding * kAtOnce];
  for (std::int64_t d = 0; d < depths; d += kAtOnce) {
    const std::int64_t n = depths - d < kAtOnce ? depths - d : kAtOnce;
    WindowPlace at(g, line);
    for (std::int64_t i = 0; i < count; ++i, at.next(g)) gather_window<I>(g, map, at, depth + d, depth + d + n, buffer + i * n);
    pack({buffer, n, 1}, count, n, width, panel + steps.words_before(d) * width);
  }
}

// Rows [line, line + count) of the matrix, columns [depth, depth + depths), one behind the other and each filled up with zeros to `length`.
template <class I, class T>
void gather_rows(const ConvGeometry& g, const T* map, std::int64_t line, std::int64_t count, std::int64_t depth, std::int64_t depths,
                 std::int64_t length, T* rows) {
  WindowPlace at(g, line);
  for (std::int64_t i = 0; i < count; ++i, at.next(g), rows += length) {
    gather_window<I>(g, map, at, depth, depth + depths, rows);
    clear_elements(rows + depths, length - depths);
  }
}

// Panels of `width` whose lines are columns [line, line + count) of the matrix, and whose depths are windows; a panel is `panel_size` long.
template <class I, class T>
void pack_window_columns(PackPanel pack, const ConvGeometry& g, const T* map, std::int64_t line, std::int64_t count, std::int64_t depth,
                         std::int64_t depths, Steps steps, std::int64_t width, std::int64_t panel_size, float* panels) {
  constexpr std::int64_t kAtOnce = 32, kMostColumns = 256;  // windows; columns, whole panels of them
  alignas(64) T buffer[kAtOnce * kMostColumns];
  const std::int64_t columns = kMostColumns / width * width;
  WindowPlace start(g, depth);
  for (std::int64_t d = 0; d < depths; d += kAtOnce) {
    const std::int64_t n = depths - d < kAtOnce ? depths - d : kAtOnce;
    WindowPlace at = start;
    for (std::int64_t first = 0; first < count; first += columns) {
      const std::int64_t c = count - first < columns ? count - first : columns;
      at = start;
      for (std::int64_t i = 0; i < n; ++i, at.next(g)) gather_window<I>(g, map, at, line + first, line + first + c, buffer + i * c);
      for (std::int64_t l = 0; l < c; l += width) {
        pack({buffer + l, 1, c}, c - l < width ? c - l : width, n, width,
             panels + (first + l) / width * panel_size + steps.words_before(d) * width);
      }
    }
    start = at;
  }
}

}  // namespace twinlens::gemm
