#pragma once
// A product, from packing to the finished c: blocks of the depth outside, then groups of panels, then tiles.

#include "kernels/cpu/gemm/epilogue.h"
#include "kernels/cpu/gemm/pack.h"
#include "kernels/cpu/gemm/plan.h"
#include "kernels/cpu/gemm/tile.h"
#if defined(TWINLENS_TILE_REGISTERS)
#include "kernels/cpu/gemm/split.h"
#endif
#include "kernels/cpu/gemm/windows.h"
#include "kernels/cpu/vec/prefetch.h"

#include "twinlens/kernels/parallel.h"

namespace twinlens::gemm {

[[gnu::always_inline]] constexpr std::int64_t least(std::int64_t a, std::int64_t b) { return a < b ? a : b; }
[[gnu::always_inline]] constexpr std::int64_t parts(std::int64_t n, std::int64_t size) { return (n + size - 1) / size; }

// Rows and columns of c that are worked on, and a block of the depth.
struct Region {
  std::int64_t row, rows, col, cols;
};
struct Block {
  std::int64_t depth, depths, words;
  bool first, last;
};
// What is packed of them: panels of a from `row` on, of b from `col` on.
struct Panels {
  const float* a;
  std::int64_t row;
  const float* b;
  std::int64_t col;
};

// An operand of one item of the batch.
template <class I>  // so that every instruction set has symbols of its own
struct Packer {
  Lines lines;
  DType dtype;
  PackPanel pack;
  Steps steps;
  const ConvGeometry* windows;                     // null for a matrix that lies in memory
  static constexpr std::int64_t kRowsAtOnce = 64;  // (of words)

  // Lines [line, line + count) of one block of the depth into panels of `width`, one behind the other.
  void operator()(const Block& k, std::int64_t line, std::int64_t count, std::int64_t width, float* panels) const {
    if (windows != nullptr && lines.depth_stride != 1) {
      return visit_float(dtype, [&]<class T>(TypeTag<T>) {
        pack_window_columns<I>(pack, *windows, static_cast<const T*>(lines.base), line, count, k.depth, k.depths, steps, width,
                               width * k.words, panels);
      });
    }
    // Neighbouring lines side by side in a row: a few rows at a time go to all panels, so that a row is read in one run. The next few are
    // asked for meanwhile: they lie a page and more apart, where no hardware prefetcher follows.
    const bool in_rows = windows == nullptr && lines.line_stride == 1;
    const std::int64_t at_once = in_rows ? steps.depths * (kRowsAtOnce / steps.words) : k.depths, panel_count = parts(count, width);
    for (std::int64_t d = 0; d < k.depths; d += at_once) {
      const Block part{k.depth + d, least(at_once, k.depths - d), k.words, k.first, k.last};
      const std::int64_t next = part.depth + part.depths, ahead = in_rows ? least(at_once, k.depth + k.depths - next) : 0;
      for (std::int64_t i = 0; i < panel_count; ++i) {
        prefetch_rows(next + ahead * i / panel_count, next + ahead * (i + 1) / panel_count, line, count);
        const std::int64_t l = i * width;
        one_panel(part, line + l, least(width, count - l), width, panels + l * k.words + steps.words_before(d) * width);
      }
    }
  }

 private:
  // Depths [begin, end) of `count` lines that lie side by side.
  void prefetch_rows(std::int64_t begin, std::int64_t end, std::int64_t line, std::int64_t count) const {
    const std::int64_t size = size_of(dtype);
    for (std::int64_t d = begin; d < end; ++d)
      prefetch_row(static_cast<const char*>(lines.base) + (d * lines.depth_stride + line) * size, count * size, false);
  }

  void one_panel(const Block& k, std::int64_t line, std::int64_t count, std::int64_t width, float* panel) const {
    if (windows != nullptr) {
      return visit_float(dtype, [&]<class T>(TypeTag<T>) {
        pack_windows<I>(pack, *windows, static_cast<const T*>(lines.base), line, count, k.depth, k.depths, steps, width, panel);
      });
    }
    const std::int64_t offset = line * lines.line_stride + k.depth * lines.depth_stride;
    pack({static_cast<const char*>(lines.base) + offset * size_of(dtype), lines.line_stride, lines.depth_stride}, count, k.depths, width,
         panel);
  }
};

template <class I, Form F>
struct Product {
  static constexpr Form kForm = F;
  static constexpr std::int64_t kDepths = depths_of_unit(F);
  static constexpr std::int64_t kWordBytes = 4;
  using Shape = TileShape<I, F>;
  static constexpr Steps kSteps{Shape::kRowDepths, Shape::kRowWords};
  static constexpr int kVectors = Shape::kVectors;
  static constexpr std::int64_t kTileRows = Shape::kRows, kTileCols = kVectors * I::kWidth;
  static_assert(kTaskRows % kTileRows == 0 && kTaskCols % kTileCols == 0 && kTileCols <= kPadding);
  // The lines that a thread packs at one time, and their panels.
  static constexpr std::int64_t kPackedLines = 192, kPanelsOfA = kPackedLines / kTileRows, kPanelsOfB = kPackedLines / kTileCols;
  static_assert(kPackedLines % kTileRows == 0 && kPackedLines % kTileCols == 0);
  // When what tiles touch of c is asked for: a few rows with every step of tile registers (many at once take the buffers through which
  // tiles come from L2), or before the last words of a tile. (One in thirds takes so long that it is gone again by then; its stores are
  // done during the next one.)
  static constexpr bool kAsksInSteps = F == Form::pairs && __is_same(I, Avx512Amx), kAsksAtOnce = !kAsksInSteps && F != Form::thirds;
  static constexpr bool kReadsRows = F != Form::thirds;  // whose elements are what words are made of, as they lie

  const Matmul& m;
  std::int64_t item;  // of the batch
  Packer<I> a, b;
  Rows c;     // of this item
  Rows sums;  // f32, between blocks of the depth: c itself or scratch with the rows and columns of the region

  Product(const Matmul& args, std::int64_t item_of_batch, float* scratch_sums) : m(args), item(item_of_batch), c(args.c) {
    a = packer(m.a, m.a.transposed);
    b = packer(m.b, !m.b.transposed);
#if defined(TWINLENS_TILE_REGISTERS)
    if constexpr (F == Form::thirds) {
      visit_float(m.a.dtype, [&]<class T>(TypeTag<T>) { a.pack = pack_rows_in_thirds<I, T>; });
      visit_float(m.b.dtype, [&]<class T>(TypeTag<T>) { b.pack = pack_columns_in_thirds<I, T>; });
    }
#endif
    if constexpr (F != Form::thirds) {
      const bool rounded = m.compute == Compute::bf16;
      if constexpr (Shape::kRowWords > 1) {
        a.pack = pack_row_words_function<I, Shape::kRowWords>(m.a.dtype);
      } else {
        a.pack = pack_function<I, least(kTileRows, I::kWidth), F, 1>(m.a.dtype, rounded);
      }
      b.pack = pack_function<I, I::kWidth, F, Shape::kRowWords>(m.b.dtype, rounded);
    }
    c.data = static_cast<char*>(m.c.data) + item * m.c_batch_stride * size_of(m.c.dtype);
    sums = c;
    if (c.dtype != DType::f32) sums = {scratch_sums, DType::f32, c.rows, kGroupCols, least(c.cols, kGroupCols), nullptr};
  }
  // Without its function.
  Packer<I> packer(const MatmulOperand& x, bool lines_are_columns) const {
    const char* base = static_cast<const char*>(x.data) + item * x.batch_stride * size_of(x.dtype);
    return {{base, lines_are_columns ? 1 : x.stride, lines_are_columns ? x.stride : 1},
            x.dtype,
            nullptr,
            kSteps,
            x.is_windows() ? &x.windows : nullptr};
  }

  // Calls f.template operator()<Vectors>() with the registers that `cols` <= kTileCols columns need.
  template <int Vectors = kVectors, class Body>
  TWINLENS_INLINE static void with_vectors(std::int64_t cols, Body&& f) {
    if constexpr (Vectors > 1) {
      if (cols <= (Vectors - 1) * I::kWidth) return with_vectors<Vectors - 1>(cols, f);
    }
    f.template operator()<Vectors>();
  }

  bool a_is_words() const {
    if (F == Form::floats && !I::kBf16Dot && m.compute == Compute::bf16) return false;  // f32 is rounded while it is packed
    return kReadsRows && a.dtype == (F == Form::floats ? DType::f32 : DType::bf16);
  }
  // Whether whole tiles of a are read where they lie: words side by side, and no depth to fill up.
  bool a_in_place(const Block& k) const {
    return a_is_words() && a.windows == nullptr && a.lines.depth_stride == 1 && k.words * kDepths == k.depths;
  }
  // Whether windows of a are gathered into a panel whose rows lie one behind the other.
  bool a_in_rows() const { return a_is_words() && a.windows != nullptr && a.lines.depth_stride == 1; }

  // Panels `index` and the `count` - 1 behind it of the region's rows or columns go to their places in `panels`. A last panel of b that
  // fits into fewer registers is that narrow.
  void pack_a(const Region& r, const Block& k, std::int64_t index, std::int64_t count, float* panels) const {
    std::int64_t row = index * kTileRows;
    const std::int64_t end = least(row + count * kTileRows, r.rows);
    if (a_in_place(k)) row += (end - row) / kTileRows * kTileRows;
    if (row == end) return;
    if (a_in_rows()) {
      using Element = std::conditional_t<F == Form::floats, float, bf16>;
      return gather_rows<I>(*a.windows, static_cast<const Element*>(a.lines.base), r.row + row, end - row, k.depth, k.depths,
                            k.words * kDepths, reinterpret_cast<Element*>(panels + row * k.words));
    }
    a(k, r.row + row, end - row, kTileRows, panels + row * k.words);
  }
  // The rows of a tile from `row` on, in place or in the panels.
  TileRows rows_of_a(const Region& r, const Block& k, std::int64_t row, const Panels& panels) const {
    if (a_in_place(k) && row + kTileRows <= r.row + r.rows) {
      const std::int64_t size = size_of(a.dtype);
      return {static_cast<const char*>(a.lines.base) + (row * a.lines.line_stride + k.depth) * size, a.lines.line_stride * size,
              Shape::kRowWords * kWordBytes};
    }
    const float* panel = panels.a + (row - panels.row) * k.words;
    if (a_in_rows()) return {panel, k.words * kWordBytes, Shape::kRowWords * kWordBytes};
    return {panel, Shape::kRowWords * kWordBytes, kTileRows * Shape::kRowWords * kWordBytes};
  }
  void pack_b(const Region& r, const Block& k, std::int64_t index, std::int64_t count, float* panels) const {
    std::int64_t col = index * kTileCols;
    const std::int64_t end = least(col + count * kTileCols, r.cols), whole = (end - col) / kTileCols * kTileCols;
    if (whole > 0) b(k, r.col + col, whole, kTileCols, panels + col * k.words);
    col += whole;
    if (col < end) b(k, r.col + col, end - col, parts(end - col, I::kWidth) * I::kWidth, panels + col * k.words);
  }

  // The part `task` of region r. kStepWords of a panel of b stay in the first-level cache while up to kTaskRows rows
  // pass by; the sums of those wait in a buffer.
  void compute(const Region& r, const Region& task, const Block& k, const Panels& panels) const {
    alignas(64) float sums_of_rows[kTaskRows * kTileCols];
    [[maybe_unused]] const TileRegisters<I, F> registers;
    const std::int64_t end = task.row + task.rows;
    for (std::int64_t first = task.row; first < end; first += kTaskRows) {
      const std::int64_t last = least(first + kTaskRows, end);
      for (std::int64_t col = task.col; col < task.col + task.cols; col += kTileCols) {
        const std::int64_t cols = least(kTileCols, task.col + task.cols - col);
        const float* b_panel = panels.b + (col - panels.col) * k.words;
        with_vectors(cols, [&]<int Vectors>() {
          constexpr std::int64_t width = Vectors * I::kWidth;
          Prefetch ahead;
          if (kAsksInSteps) ask_in_steps(k, first, last - first, col, cols, ahead);
          for (std::int64_t word = 0; word < k.words || word == 0; word += Shape::kStepWords) {
            const std::int64_t words = least(Shape::kStepWords, k.words - word);
            for (std::int64_t row = first; row < last; row += kTileRows) {
              const bool last_words = word + words == k.words;
              if (kAsksAtOnce && last_words) prefetch_c(row, least(kTileRows, last - row), col, cols);
              TileRows rows = rows_of_a(r, k, row, panels);
              rows.data = static_cast<const char*>(rows.data) + word / Shape::kRowWords * rows.step_bytes;
              float* const sums_of_tile = sums_of_rows + (row - first) * width;
              micro_kernel<I, F, Vectors>(words, rows, b_panel + word * width, sums_of_tile, word > 0, kAsksInSteps ? &ahead : nullptr);
              if (!last_words) continue;
              const TileOfC tile{sums_of_tile, width, row, col, least(kTileRows, last - row), cols};
              if constexpr (F == Form::thirds) retake_not_finite(k, tile);
              take_tile(r, k, tile);
            }
          }
        });
      }
    }
  }

  // What take_tile() will touch.
  TWINLENS_INLINE void add_c(std::int64_t row, std::int64_t rows, std::int64_t col, std::int64_t cols, Prefetch& ahead) const {
    ahead.add(c, row, rows, col, cols, true);
    ahead.add(m.pre, row, rows, col, cols, true);
    ahead.add(m.residual, row, rows, col, cols, false);
  }
  // The same, all of it asked for by the time when the first of the tiles is complete.
  TWINLENS_INLINE void ask_in_steps(const Block& k, std::int64_t row, std::int64_t rows, std::int64_t col, std::int64_t cols,
                                    Prefetch& ahead) const {
    constexpr int fewest = 4;  // rows of a step
    add_c(row, rows, col, cols, ahead);
    // All tiles meet the words before the last ones, then the first of them meets those.
    const std::int64_t before = k.words > 0 ? (k.words - 1) / Shape::kStepWords * Shape::kStepWords : 0;
    ahead.spread((before * parts(rows, kTileRows) + k.words - before) / Shape::kRowWords);
    if (ahead.pace < fewest) ahead.pace = fewest;
  }
  // Asks for it at once. (Not inlined, gcc takes it for a function without effect and drops the call.)
  TWINLENS_INLINE void prefetch_c(std::int64_t row, std::int64_t rows, std::int64_t col, std::int64_t cols) const {
    Prefetch wanted;
    add_c(row, rows, col, cols, wanted);
    wanted.step(Prefetch::kStripes * kTileRows);
  }

  // Sums in thirds that are NaN or infinite, taken again by multiply-adds: they may not be with them (split.h). An element at a time
  // changes, so that its bits do not depend on its neighbours.
  // (Looking at every tile costs products up to 7 % of their time: only where there can be something to find.)
  void retake_not_finite(const Block& k, const TileOfC& tile) const {
    if (!__atomic_load_n(&met_large_numbers<I>, __ATOMIC_RELAXED) || all_finite<I>(tile)) return;
    using Plain = Product<I, Form::floats>;
    constexpr std::int64_t depths = 64, rows_at_once = Plain::kTileRows, cols = kTileCols;
    alignas(64) float a_panel[depths * rows_at_once], b_panel[depths * cols], again[rows_at_once * cols];
    const Plain plain(m, item, nullptr);
    for (std::int64_t row = 0; row < tile.rows; row += rows_at_once) {
      const std::int64_t rows = least(rows_at_once, tile.rows - row);
      for (std::int64_t d = 0; d < k.depths; d += depths) {
        const std::int64_t n = least(depths, k.depths - d);
        const Block part{k.depth + d, n, n, true, true};
        plain.a(part, tile.row + row, rows, rows_at_once, a_panel);
        plain.b(part, tile.col, tile.cols, cols, b_panel);
        micro_kernel<I, Form::floats, kVectors>(n, {a_panel, kWordBytes, rows_at_once * kWordBytes}, b_panel, again, d > 0);
      }
      for (std::int64_t i = 0; i < rows; ++i) {
        float* const sums_of_row = tile.sums + (row + i) * tile.width;
        for (std::int64_t j = 0; j < tile.cols; ++j) {
          if (!(sums_of_row[j] - sums_of_row[j] == 0.0F)) sums_of_row[j] = again[i * cols + j];
        }
      }
    }
  }

  static void load_tile(const TileOfC& tile, const Rows& from) {
    along_tile<I>(tile, from.row<float>(0), from.stride,
                  [](float* to, const float* x, std::int64_t n) { store_lanes<I>(load_lanes<I>(x, n), to, n); });
  }

  // A tile's share of one depth block: into the sums, or finished into c.
  void take_tile(const Region& r, const Block& k, const TileOfC& tile) const {
    if (m.accumulate) {
      scale_tile<I>(tile, m.alpha);
      add_to_tile<I>(tile, c);
      return store_tile<I>(tile, c);
    }
    TileOfC in_sums = tile;
    if (c.dtype != DType::f32) {
      in_sums.row -= r.row;
      in_sums.col -= r.col;
    }
    if (!k.first) add_to_tile<I>(in_sums, sums);
    if (!k.last) return store_tile<I>(in_sums, sums);
    finish_tile<I>(m, c, tile);
  }
};

// One thread, one block of the depth.
template <class P>
void multiply_block(const P& product, const Region& all, const Block& k, float* a_panels, float* b_panels) {
  product.pack_b(all, k, 0, parts(all.cols, P::kTileCols), b_panels);
  product.pack_a(all, k, 0, parts(all.rows, P::kTileRows), a_panels);
  product.compute(all, all, k, {a_panels, all.row, b_panels, all.col});
}

// Products too small to share.
template <class P>
void multiply_small(const Matmul& m, std::int64_t item, float* a_panels, float* b_panels) {
  const Block k{0, m.depth, P::kSteps.words_of(m.depth), true, true};
  multiply_block<P>(P(m, item, nullptr), {0, m.c.rows, 0, m.c.cols}, k, a_panels, b_panels);
}

// Panels of a are packed by all threads; then each takes columns and packs its own panels of b, which stay in its L2 while all rows pass
// by.
template <class P>
void multiply_wide(const P& product, const ScratchPlan& plan, const Region& r, const Block& k, float* a_panels, float* b_panels) {
  parallel_for(parts(r.rows, P::kPackedLines), 1,
               [&](std::int64_t i, std::int64_t) { product.pack_a(r, k, i * P::kPanelsOfA, P::kPanelsOfA, a_panels); });
  const std::int64_t slots = thread_count();
  const Tasks tasks(parts(r.cols, P::kTileCols), plan.task_cols / P::kTileCols);
  parallel_for_slots(tasks.count(), slots, [&](std::int64_t slot, std::int64_t task) {
    const std::int64_t col = tasks.begin(task) * P::kTileCols, end = least(tasks.begin(task + 1) * P::kTileCols, r.cols);
    const Region own{r.row, r.rows, r.col + col, end - col};
    float* const own_panels = b_panels + slot * (plan.b / slots);
    product.pack_b(own, k, 0, parts(own.cols, P::kTileCols), own_panels);
    product.compute(r, own, k, {a_panels, r.row, own_panels, own.col});
  });
}

// Panels of b are packed by all threads; then each takes whole rows and packs its own panels of a.
template <class P>
void multiply_tall(const P& product, const ScratchPlan& plan, const Region& r, const Block& k, float* a_panels, float* b_panels) {
  parallel_for(parts(r.cols, P::kTileCols), 4,
               [&](std::int64_t begin, std::int64_t end) { product.pack_b(r, k, begin, end - begin, b_panels); });
  const std::int64_t slots = thread_count();
  const Tasks tasks(parts(r.rows, P::kTileRows), kTaskRows / P::kTileRows);
  parallel_for_slots(tasks.count(), slots, [&](std::int64_t slot, std::int64_t task) {
    const std::int64_t row = tasks.begin(task) * P::kTileRows, end = least(tasks.begin(task + 1) * P::kTileRows, r.rows);
    const Region own{r.row + row, end - row, r.col, r.cols};
    float* const own_panels = a_panels + slot * (plan.a / slots);
    product.pack_a(own, k, 0, parts(own.rows, P::kTileRows), own_panels);
    product.compute(r, own, k, {own_panels, own.row, b_panels, r.col});
  });
}

// Panels of a region are packed by all threads, then its tiles are shared out, down the rows first.
template <class P>
void multiply_region(const P& product, const ScratchPlan& plan, const Region& r, const Block& k, float* a_panels, float* b_panels) {
  if (plan.wide) return multiply_wide(product, plan, r, k, a_panels, b_panels);
  if (plan.tall) return multiply_tall(product, plan, r, k, a_panels, b_panels);
  const std::int64_t a_count = parts(r.rows, P::kPackedLines), b_count = parts(r.cols, P::kPackedLines);
  parallel_for(a_count + b_count, 1, [&](std::int64_t i, std::int64_t) {
    if (i < b_count) {
      product.pack_b(r, k, i * P::kPanelsOfB, P::kPanelsOfB, b_panels);
    } else {
      product.pack_a(r, k, (i - b_count) * P::kPanelsOfA, P::kPanelsOfA, a_panels);
    }
  });
  const std::int64_t row_tasks = parts(r.rows, kTaskRows), col_tasks = parts(r.cols, plan.task_cols);
  parallel_for(row_tasks * col_tasks, 1, [&](std::int64_t task, std::int64_t) {
    const std::int64_t row = r.row + task % row_tasks * kTaskRows, col = r.col + task / row_tasks * plan.task_cols;
    product.compute(r, {row, least(kTaskRows, r.row + r.rows - row), col, least(plan.task_cols, r.col + r.cols - col)}, k,
                    {a_panels, r.row, b_panels, r.col});
  });
}

// Blocks of the depth side by side, each into sums of its own; then c takes them in the order in which it would have seen them.
template <class P>
void multiply_deep(const Matmul& m, const ScratchPlan& plan, float* scratch) {
  const Region all{0, m.c.rows, 0, m.c.cols};
  const DepthBlocks blocks = depth_blocks(m.depth, P::kForm);
  const auto block = [&](std::int64_t i) {
    const std::int64_t depth = i * blocks.depths, depths = least(m.depth - depth, blocks.depths);
    return Block{depth, depths, P::kSteps.words_of(depths), i == 0, i == blocks.blocks - 1};
  };
  float* const c_sums = scratch + plan.slots * (plan.a + plan.b);
  const auto sums_of = [&](std::int64_t i) {
    return Rows{c_sums + plan.sums + i * all.rows * all.cols, DType::f32, all.rows, all.cols, all.cols, nullptr};
  };
  parallel_for_slots(blocks.blocks, plan.slots, [&](std::int64_t slot, std::int64_t i) {
    Matmul own = m;  // the bare product of the block
    own.accumulate = false;
    own.c = sums_of(i);
    Block k = block(i);
    k.first = true;
    k.last = false;
    float* panels = scratch + slot * (plan.a + plan.b);
    multiply_block<P>(P(own, 0, nullptr), all, k, panels, panels + plan.a);
  });
  const P product(m, 0, c_sums);
  const std::int64_t row_tiles = parts(all.rows, P::kTileRows), col_tiles = parts(all.cols, P::kTileCols);
  parallel_for(row_tiles * col_tiles, 4, [&](std::int64_t begin, std::int64_t end) {
    alignas(64) float buffer[P::kTileRows * P::kTileCols];
    for (std::int64_t t = begin; t < end; ++t) {
      const std::int64_t row = t / col_tiles * P::kTileRows, col = t % col_tiles * P::kTileCols;
      const TileOfC tile{buffer, P::kTileCols, row, col, least(P::kTileRows, all.rows - row), least(P::kTileCols, all.cols - col)};
      for (std::int64_t i = 0; i < blocks.blocks; ++i) {
        P::load_tile(tile, sums_of(i));
        product.take_tile(all, block(i), tile);
      }
    }
  });
}

template <class I, Form F>
void multiply(const Matmul& m) {
  using P = Product<I, F>;
  const ScratchPlan plan = scratch_plan(m, F, __is_same(I, Avx512Amx));
  float* const scratch = static_cast<float*>(m.scratch);
  if (plan.small) {
    parallel_for(m.batch, parts(m.batch, plan.slots), [&](std::int64_t begin, std::int64_t end) {
      float* slot = scratch + begin / parts(m.batch, plan.slots) * (plan.a + plan.b);
      for (std::int64_t item = begin; item < end; ++item) multiply_small<P>(m, item, slot, slot + plan.a);
    });
    return;
  }
  if (plan.deep) return multiply_deep<P>(m, plan, scratch);
  const DepthBlocks blocks = depth_blocks(m.depth, F);
  for (std::int64_t item = 0; item < m.batch; ++item) {
    const P product(m, item, scratch + plan.a + plan.b);
    for (std::int64_t col = 0; col < m.c.cols; col += kGroupCols) {
      for (std::int64_t row = 0; row < m.c.rows; row += plan.group_rows) {
        const Region r{row, least(plan.group_rows, m.c.rows - row), col, least(kGroupCols, m.c.cols - col)};
        for (std::int64_t i = 0; i < blocks.blocks; ++i) {
          const std::int64_t depth = i * blocks.depths, depths = least(m.depth - depth, blocks.depths);
          multiply_region(product, plan, r, {depth, depths, P::kSteps.words_of(depths), i == 0, i == blocks.blocks - 1}, scratch,
                          scratch + plan.a);
        }
      }
    }
  }
}

}  // namespace twinlens::gemm
