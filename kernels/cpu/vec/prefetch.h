#pragma once
// Asks for memory ahead of its use: for what lies next, and for strided rows, a few at a time from inside a product: rows of one head lie a
// page or more apart, where no hardware prefetcher follows, and waiting for them costs as much as a short sequence's products.

#include <cstdint>

#include "kernels/cpu/vec/vec.h"

#include "twinlens/kernels/view.h"

namespace twinlens {

TWINLENS_INLINE void prefetch_row(const char* row, std::int64_t bytes, bool write) {
  constexpr std::int64_t line = 64;
  for (std::int64_t b = 0; b < bytes; b += line) {
    if (write) {
      __builtin_prefetch(row + b, 1, 2);
    } else {
      __builtin_prefetch(row + b, 0, 2);
    }
  }
}

// All that a register of S is read from: into the first-level cache, or, of rows of which it holds too few, the second (2).
template <class S, int Cache = 3, class T>
TWINLENS_INLINE void ask(const T* p) {
  for (int i = 0; i < S::kWidth; i += static_cast<int>(64 / sizeof(T))) __builtin_prefetch(p + i, 0, Cache);
}
// The same of what comes next in blocks that a loop goes through: about what a core takes in while memory answers, further than the
// instructions reach that a processor holds.
template <class S, class... T>
TWINLENS_INLINE void ask_ahead(const T*... p) {
  constexpr std::int64_t bytes = 4096;
  (ask<S>(p + bytes / static_cast<std::int64_t>(sizeof(T))), ...);
}

struct Prefetch {
  struct Stripe {
    const char* at;
    std::int64_t stride, rows, bytes;  // rows still to come, `stride` bytes apart, `bytes` of each
    bool write;
  };
  static constexpr int kStripes = 10;
  Stripe stripes[kStripes];
  int count = 0, current = 0;
  int pace = 1;  // rows of a tick

  // Rows [begin, begin + rows) of x, columns [column, column + columns). Nothing when x has no data.
  template <class R>
  TWINLENS_INLINE void add(const R& x, std::int64_t begin, std::int64_t rows, std::int64_t column, std::int64_t columns, bool write) {
    if (x.data == nullptr || rows <= 0 || count == kStripes) return;
    const std::int64_t size = size_of(x.dtype);
    stripes[count++] = {static_cast<const char*>(x.data) + (begin * x.stride + column) * size, x.stride * size, rows, columns * size,
                        write};
  }

  // Sets the pace so that so many ticks reach all rows. (Spreading fewer rows than ticks more thinly gains nothing.)
  TWINLENS_INLINE void spread(std::int64_t ticks) {
    std::int64_t rows = 0;
    for (int i = 0; i < count; ++i) rows += stripes[i].rows;
    pace = static_cast<int>((rows + ticks) / (ticks + 1));
  }
  TWINLENS_INLINE void tick() { step(pace); }

  TWINLENS_INLINE bool more() const { return current < count; }
  TWINLENS_INLINE void step(int rows) {
    for (; rows > 0 && current < count; --rows) {
      Stripe& s = stripes[current];
      prefetch_row(s.at, s.bytes, s.write);
      s.at += s.stride;
      if (--s.rows == 0) ++current;
    }
  }
};

}  // namespace twinlens
