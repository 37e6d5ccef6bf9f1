#pragma once
// How a product is cut into pieces. The cuts along the depth are a function of the depth alone, so the bits of an element of c do not
// depend on the shape of the rest; the other cuts change no bits.

#include "kernels/cpu/gemm/form.h"

#include "twinlens/kernels/matmul.h"
#include "twinlens/kernels/parallel.h"

namespace twinlens::gemm {

// Words (f32, or pairs of bf16) of the depth in one block: a panel of b of 48 columns is then at most 288 KiB, a quarter of a Zen 4
// core's L2, and c is visited once for the depths that training has mostly (768, 1536; in pairs also 1600 rows of a weight gradient).
inline constexpr std::int64_t kMaxBlockWords = 1536;
inline constexpr std::int64_t kMaxBlockThirds = kMaxBlockWords / 3 * 2;  // depths of f32 in thirds (split.h), three words for two of them
// Rows and columns of c whose panels are packed at one time; multiples of every register tile. Bounds the scratch.
inline constexpr std::int64_t kGroupRows = 2048, kGroupCols = 3072;
inline constexpr std::int64_t kPadding = 64;       // no tile is longer
inline constexpr std::int64_t kDepthPadding = 32;  // the depth of a block may be padded to a multiple of this (TileShape::kRowDepths)
static_assert(kMaxBlockThirds % kDepthPadding == 0);
// A product of at most this many multiply-adds is packed and computed by one thread; a batch of them goes over the threads.
inline constexpr std::int64_t kSmallProduct = 1 << 20;
inline constexpr std::int64_t kMaxSlots = 64;
// A c of at most this many elements has too few tiles for the threads: when its depth has several blocks, those are shared out instead.
inline constexpr std::int64_t kDeepProduct = 1 << 17;
// A b of at most this many words stays in a core's L2. A c with many rows is then cut into tasks of kTaskRows whole rows, each of which
// packs its own part of a: a goes through the first-level cache once and threads meet twice in all.
inline constexpr std::int64_t kResidentWords = 1 << 17, kTaskRows = 64;
// The columns of a task otherwise: their panels of b stay in L2 while all rows pass by. Where there are enough such tasks each packs its
// own part of b, which then never leaves that core. Tile registers multiply pairs faster than rows of a come from beyond L2, and have an
// L2 of 2 MiB beside them: as many columns as kTaskWords have room for, of `cols` to be shared out.
inline constexpr std::int64_t kTaskCols = 192, kMostTaskCols = 3 * kTaskCols, kTaskWords = kMostTaskCols * 384;
[[gnu::always_inline]] inline std::int64_t task_cols(bool tile_pairs, std::int64_t cols, std::int64_t words) {
  if (!tile_pairs || words == 0) return kTaskCols;
  const std::int64_t threads = thread_count(), share = (cols + threads - 1) / threads;
  std::int64_t most = kTaskWords / words;
  if (most > share) most = share;
  return most <= kTaskCols ? kTaskCols : most >= kMostTaskCols ? kMostTaskCols : most / kTaskCols * kTaskCols;
}
inline constexpr std::int64_t kUnitRows = 32, kUnitCols = 48;  // for choices between those: about what a tile has

struct DepthBlocks {
  std::int64_t depths, blocks;  // of a block (the last may be shorter), number
};

[[gnu::always_inline]] inline DepthBlocks depth_blocks(std::int64_t depth, Form form) {
  const std::int64_t unit = depths_of_unit(form), most = form == Form::thirds ? kMaxBlockThirds : kMaxBlockWords;
  const std::int64_t units = (depth + unit - 1) / unit;
  if (units <= most) return {units * unit, 1};
  const std::int64_t blocks = (units + most - 1) / most;
  return {(units + blocks - 1) / blocks * unit, blocks};
}

// Units (tiles, panels) shared out in tasks of at most `most`, which threads take one after the other: as many as leave no thread without
// one at the end, all nearly the same. Where each thread has several, its last one is cut in two: processors are rarely equally fast, and
// the slower one is waited for. (With fewer, what smaller tasks read again costs more than the wait.)
class Tasks {
 public:
  [[gnu::always_inline]] Tasks(std::int64_t units, std::int64_t most) {
    const std::int64_t threads = thread_count();
    halves_ = threads > 1 && most > 1 && units >= 4 * most * threads ? 2 * threads : 0;
    head_ = units - halves_ / 2 * most;
    tail_ = units - head_;
    const std::int64_t fewest = (head_ + most - 1) / most, even = (fewest + threads - 1) / threads * threads;
    equal_ = even < head_ ? even : head_;
  }
  [[gnu::always_inline]] std::int64_t count() const { return equal_ + halves_; }
  // Its units are [begin(task), begin(task + 1)).
  [[gnu::always_inline]] std::int64_t begin(std::int64_t task) const {
    return task < equal_ ? task * head_ / equal_ : halves_ == 0 ? head_ : head_ + (task - equal_) * tail_ / halves_;
  }

 private:
  std::int64_t head_, tail_, equal_, halves_;
};

// Whether n rows or columns in units of `unit` keep the threads busy: no more than a tenth of them idle on average.
[[gnu::always_inline]] inline bool fill_threads(std::int64_t n, std::int64_t unit) {
  const std::int64_t threads = thread_count(), units = (n + unit - 1) / unit;
  return 10 * n >= 9 * unit * threads * ((units + threads - 1) / threads);
}

// Where things lie in the scratch, in floats.
struct ScratchPlan {
  bool small;  // each slot holds the panels of one item
  bool deep;   // each slot holds the panels of one block of the depth; all at once
  bool tall;   // each slot holds panels of a for one task's rows; b is packed by all, before them; groups have all rows of c
  bool wide;   // each slot holds panels of b for one task's columns; a is packed by all, before them
  std::int64_t slots;
  std::int64_t group_rows;  // of c, worked on at one time
  std::int64_t task_cols;   // of a task that has not whole rows
  std::int64_t a, b;        // sizes of the panels of a, of b
  std::int64_t sums;        // sums in f32 for a c that cannot hold them between blocks of the depth
  std::int64_t blocks;      // of a deep product, the sums of every block
  [[gnu::always_inline]] std::int64_t size() const { return slots * (a + b) + sums + blocks; }
};

[[gnu::always_inline]] inline ScratchPlan scratch_plan(const Matmul& m, Form form, bool tile_registers) {
  const std::int64_t cols = m.c.cols < kGroupCols ? m.c.cols : kGroupCols;
  const auto [depths, blocks] = depth_blocks(m.depth, form);
  const std::int64_t padded = (depths + kDepthPadding - 1) / kDepthPadding * kDepthPadding;
  const std::int64_t words = form == Form::floats ? padded : form == Form::pairs ? padded / 2 : padded / 2 * 3;
  const bool one_group = m.c.rows <= kGroupRows && m.c.cols <= kGroupCols;
  ScratchPlan p{};
  p.small = blocks == 1 && one_group && m.c.rows * m.c.cols * m.depth <= kSmallProduct;
  p.deep = m.batch == 1 && blocks > 1 && one_group && m.c.rows * m.c.cols <= kDeepProduct &&
           (fill_threads(blocks, 1) || !fill_threads(m.c.rows * m.c.cols, kTaskRows * kTaskCols));
  // The smaller operand is the one that all pack: it lies further away when it is read.
  const bool resident = blocks == 1 && m.c.cols <= kGroupCols && (cols + kPadding) * words <= kResidentWords;
  const bool larger_a = m.a.transposed && !m.a.is_windows() && m.c.rows >= m.c.cols && fill_threads(m.c.rows, kUnitRows);
  p.tall = !p.small && !p.deep && ((resident && m.c.rows >= 8 * kTaskRows) || larger_a);
  p.task_cols = task_cols(tile_registers && form == Form::pairs, cols, words);
  p.wide = !p.small && !p.deep && !p.tall && cols >= 2 * kUnitCols * thread_count() && fill_threads(cols, kUnitCols);
  p.group_rows = p.tall || m.c.rows < kGroupRows ? m.c.rows : kGroupRows;
  const std::int64_t items = p.small ? m.batch : p.deep ? blocks : 1, slots = p.small ? kMaxSlots : thread_count();
  p.slots = items < slots ? items : slots;
  p.a = p.tall ? thread_count() * kTaskRows * words : (p.group_rows + kPadding) * words;
  p.b = p.wide ? thread_count() * p.task_cols * words : (cols + kPadding) * words;
  p.sums = blocks > 1 && m.c.dtype != DType::f32 ? p.group_rows * cols : 0;
  p.blocks = p.deep ? blocks * p.group_rows * cols : 0;
  return p;
}

}  // namespace twinlens::gemm
