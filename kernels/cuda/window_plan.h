#pragma once
// How a product with the windows of a map is cut into blocks (device/window_product.cuh), and which products are. Plain host arithmetic,
// tested in tests/kernels/cuda_product_geometry.cpp; nothing here includes a CUDA header.

#include <cstdint>

#include "kernels/cuda/matmul_plan.h"

namespace twinlens::cuda {

// The two forms that a convolution has: windows(x) W^T, whose depth runs along a window, and dY^T windows(x), whose depth are the pixels.
enum class WindowForm : std::uint8_t { none, forward, weight_gradient };

constexpr WindowForm window_form(const Matmul& m) {
  if (m.a.is_windows() && !m.a.transposed && m.b.transposed) return WindowForm::forward;
  if (m.b.is_windows() && !m.b.transposed && m.a.transposed) return WindowForm::weight_gradient;
  return WindowForm::none;
}

// Whether the card reads the windows where they lie: factors of two bytes that are copied in words of 16, of which a pixel has some; no
// epilogue.
inline bool reads_windows(const Matmul& m) {
  constexpr int kWord = 8;  // elements
  const WindowForm form = window_form(m);
  if (form == WindowForm::none || m.batch != 1 || m.alpha != 1.0F || m.accumulate || m.bias != nullptr ||
      m.activation != Activation::none || m.pre.data != nullptr || m.residual.data != nullptr) {
    return false;
  }
  constexpr std::int64_t kMost = std::int64_t{1} << 30;  // walked in 32 bits
  if (m.c.rows > kMost || m.c.cols > kMost || m.depth > kMost) return false;
  const MatmulPlan p = matmul_plan(m);
  const bool forward = form == WindowForm::forward;
  const MatmulOperand &map = forward ? m.a : m.b, &other = forward ? m.b : m.a;
  const bool converted = forward ? p.convert_b : p.convert_a;
  const std::int64_t stored_cols = forward ? m.depth : m.c.rows;
  return p.type != DType::f32 && map.dtype == p.type && (m.c.dtype == DType::f32 || m.c.dtype == p.type) && map.windows.channels > 0 &&
         map.windows.channels % kWord == 0 && stored_cols % kWord == 0 && is_aligned(map.data) &&
         (converted || packs_are_aligned(other.data, other.stride, size_of(other.dtype), kWord));
}

// A block computes rows x cols of the result, 32 depths at a time. Few tiles share out the depth: each part has sums of its own, which are
// added in order afterwards. The cut is a function of the sizes alone, as the bits follow from it.
struct WindowLaunch {
  static constexpr int kThreads = 256, kDepth = 32, kStages = 3;
  static constexpr int kWarpCols = 32;  // columns of a warp's share of a tile
  static constexpr std::int64_t kLeastSteps = 16;
  static constexpr std::int64_t kSlots = 264;  // blocks that run at once on an H100 or H200: two on each of 132 multiprocessors
  int tile_rows = 128, tile_cols = 128;
  std::int64_t tiles_across = 0, tiles = 0;
  std::int64_t steps = 0, steps_per_part = 0, parts = 1;  // steps of kDepth
  std::int64_t blocks() const { return tiles * parts; }
};

// Into how many parts, of at most `most`, so many tiles are cut: a last round of blocks that fills few slots takes as long as a full one.
// The fewest parts with which rounds take at most a tenth longer than with the best number.
constexpr std::int64_t parts_of(std::int64_t tiles, std::int64_t most) {
  const auto rounds = [&](std::int64_t parts) { return ceil_div(tiles * parts, WindowLaunch::kSlots); };
  const std::int64_t whole = WindowLaunch::kSlots / tiles, last = whole > 16 ? whole : 16, end = last < most ? last : most;
  std::int64_t best = 1;  // rounds(parts) / parts is the least
  for (std::int64_t parts = 2; parts <= end; ++parts) {
    if (rounds(parts) * best < rounds(best) * parts) best = parts;
  }
  for (std::int64_t parts = 1; parts < best; ++parts) {
    if (10 * rounds(parts) * best <= 11 * rounds(best) * parts) return parts;
  }
  return best;
}

constexpr WindowLaunch window_launch(WindowForm form, std::int64_t rows, std::int64_t cols, std::int64_t depth) {
  const auto fitting = [](std::int64_t n) { return n <= 32 ? 32 : n <= 64 ? 64 : 128; };
  WindowLaunch l;
  (form == WindowForm::forward ? l.tile_cols : l.tile_rows) = fitting(form == WindowForm::forward ? cols : rows);
  l.tiles_across = ceil_div(cols, l.tile_cols);
  l.tiles = l.tiles_across * ceil_div(rows, l.tile_rows);
  l.steps = ceil_div(depth, WindowLaunch::kDepth);
  const auto least = [](std::int64_t a, std::int64_t b) { return a < b ? a : b; };
  const std::int64_t fit = kMatmulWorkspace / (rows * cols * static_cast<std::int64_t>(sizeof(float)));
  const std::int64_t parts = l.tiles == 0 ? 1 : parts_of(l.tiles, least(l.steps / WindowLaunch::kLeastSteps, fit));
  l.steps_per_part = parts > 1 ? ceil_div(l.steps, parts) : l.steps;
  l.parts = l.steps == 0 ? 1 : ceil_div(l.steps, l.steps_per_part);
  return l;
}

// Bytes of shared memory: tiles of both operands for each stage. Rows have 8 elements of padding, so that the 8 rows that ldmatrix reads at
// once lie in different banks.
constexpr std::int64_t window_tile_elements(WindowForm form, int lines) {
  return form == WindowForm::forward ? lines * (WindowLaunch::kDepth + 8) : WindowLaunch::kDepth * (lines + 8);
}
constexpr std::int64_t window_shared_bytes(WindowForm form, const WindowLaunch& l) {
  return 2 * WindowLaunch::kStages * (window_tile_elements(form, l.tile_rows) + window_tile_elements(form, l.tile_cols));
}

}  // namespace twinlens::cuda
