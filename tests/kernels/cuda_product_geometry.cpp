// What products, attention and batch norm are cut into on a card: checked on any machine.

#include <algorithm>
#include <catch2/catch.hpp>

#include "kernels/cuda/geometry.h"
#include "kernels/cuda/matmul_plan.h"
#include "kernels/cuda/window_plan.h"

namespace twinlens::cuda {

TEST_CASE("column launches cover all rows and columns and fit the parts that there is room for", "[cuda]") {
  for (const std::int64_t rows : {1, 255, 256, 257, 262144, 262145, 3211264}) {
    for (const std::int64_t cols : {1, 3, 4, 5, 64, 255, 256, 257, 2048}) {
      const ColumnLaunch launch = column_launch(rows, cols);
      CHECK(launch.threads_x * launch.threads_y <= 256);
      CHECK(std::int64_t{launch.strips} * launch.threads_x * ColumnLaunch::kPack >= cols);
      CHECK(launch.parts * launch.rows_per_part >= rows);
      CHECK((launch.parts - 1) * launch.rows_per_part < rows);
      CHECK(launch.parts <= ColumnLaunch::kMostParts);
      CHECK(launch.parts <= (rows + 63) / 64);  // batch_norm_blocks() of wide rows
      CHECK(launch.strips <= 65535);
    }
  }
  CHECK(column_launch(0, 8).parts == 0);
}

namespace {

Matmul product(DType a, DType b, DType c, Compute compute) {
  Matmul m;
  m.a.dtype = a;
  m.a.stride = 37;
  m.b.dtype = b;
  m.b.stride = 50;
  m.c.dtype = c;
  m.c.rows = 33;
  m.c.cols = 50;
  m.c.stride = 50;
  m.depth = 37;
  m.compute = compute;
  return m;
}

}  // namespace

TEST_CASE("products convert only what cuBLASLt cannot read or write", "[cuda]") {
  CHECK(matmul_plan(product(DType::f32, DType::f32, DType::f32, Compute::fp32)).bytes == 0);
  CHECK(matmul_plan(product(DType::bf16, DType::bf16, DType::f32, Compute::bf16)).bytes == 0);
  CHECK(matmul_plan(product(DType::f16, DType::f16, DType::f16, Compute::f16)).bytes == 0);

  const MatmulPlan mixed = matmul_plan(product(DType::f32, DType::bf16, DType::bf16, Compute::bf16));
  CHECK(mixed.convert_a);
  CHECK_FALSE(mixed.convert_b);
  CHECK_FALSE(mixed.sums_in_scratch);
  CHECK(mixed.bytes == aligned_bytes(33 * 40 * 2));

  const MatmulPlan narrowed = matmul_plan(product(DType::f32, DType::f32, DType::bf16, Compute::fp32));
  CHECK(narrowed.sums_in_scratch);
  CHECK(narrowed.sums_type == DType::f32);
  CHECK(narrowed.bytes == aligned_bytes(33 * 50 * 4));

  // A rounded bias would carry sums over the kink of relu.
  const float bias = 0.0F;
  for (const Activation activation : {Activation::none, Activation::relu, Activation::quick_gelu}) {
    Matmul m = product(DType::bf16, DType::bf16, DType::bf16, Compute::bf16);
    m.activation = activation;
    CHECK_FALSE(matmul_plan(m).sums_in_scratch);
    m.bias = &bias;
    CHECK(matmul_plan(m).sums_in_scratch == (activation == Activation::relu));
    m.c.dtype = DType::f32;
    CHECK_FALSE(matmul_plan(m).sums_in_scratch);
  }

  Matmul turned = product(DType::f32, DType::f32, DType::f32, Compute::bf16);
  turned.batch = 3;
  turned.a.transposed = true;
  turned.a.batch_stride = 1000;
  const MatmulPlan both = matmul_plan(turned);
  CHECK(both.a.rows == 37);
  CHECK(both.a.cols == 33);
  CHECK(both.a.items == 3);
  CHECK(both.b.items == 1);
  CHECK(both.b_at == aligned_bytes(3 * 37 * 40 * 2));
  CHECK(both.bytes == both.b_at + aligned_bytes(37 * 56 * 2));

  Matmul repeated = product(DType::f32, DType::f32, DType::f32, Compute::fp32);
  repeated.a.stride = 0;  // one row for all
  CHECK(matmul_plan(repeated).convert_a);
}

TEST_CASE("products with windows: tiles cover the result, parts the depth, and both fit", "[cuda]") {
  for (const WindowForm form : {WindowForm::forward, WindowForm::weight_gradient}) {
    for (const std::int64_t rows : {1, 32, 64, 512, 3136, 802816}) {
      for (const std::int64_t cols : {8, 27, 64, 288, 576, 4608}) {
        for (const std::int64_t depth : {0, 8, 72, 576, 4608, 3211264}) {
          const WindowLaunch l = window_launch(form, rows, cols, depth);
          CHECK(l.tiles_across * l.tile_cols >= cols);
          CHECK(l.tiles / l.tiles_across * l.tile_rows >= rows);
          CHECK(l.steps * WindowLaunch::kDepth >= depth);
          CHECK(l.parts * l.steps_per_part >= l.steps);
          CHECK((l.parts - 1) * l.steps_per_part <= l.steps);  // no part without a depth
          CHECK((l.parts == 1 || l.parts * rows * cols * 4 <= kMatmulWorkspace));
          CHECK((l.parts == 1 || l.steps_per_part >= WindowLaunch::kLeastSteps));
          CHECK(l.blocks() <= kMaxBlocks);
          CHECK(2 * (window_shared_bytes(form, l) + 1024) <= 164 * 1024);  // two blocks on a multiprocessor of sm_80
          for (const int lines : {l.tile_rows, l.tile_cols}) {
            const std::int64_t row_words = (form == WindowForm::forward ? WindowLaunch::kDepth + 8 : lines + 8) / 2;
            CHECK(row_words % 8 == 4);  // 8 rows of ldmatrix in different banks
          }
        }
      }
    }
  }
  // RN50 at 256 pictures: the gradients of its first and last 3 x 3 convolutions.
  CHECK(window_launch(WindowForm::weight_gradient, 64, 576, 802816).parts == 48);  // 5 tiles: 240 blocks of 264
  CHECK(window_launch(WindowForm::weight_gradient, 512, 4608, 12544).parts == 3);  // 144 tiles: two rounds for three parts
}

TEST_CASE("parts of a product: no number of them is more than a tenth faster, and none so fast has fewer", "[cuda]") {
  const auto time = [](std::int64_t tiles, std::int64_t parts) {
    return static_cast<double>(ceil_div(tiles * parts, WindowLaunch::kSlots)) / static_cast<double>(parts);
  };
  for (const std::int64_t tiles : {1, 5, 18, 36, 72, 100, 144, 264, 265, 392, 1000}) {
    for (const std::int64_t most : {0, 1, 3, 16, 1000}) {
      const std::int64_t parts = parts_of(tiles, most), room = WindowLaunch::kSlots / tiles;
      double best = time(tiles, 1);
      for (std::int64_t p = 2; p <= std::min(most, std::max<std::int64_t>(room, 16)); ++p) best = std::min(best, time(tiles, p));
      INFO(tiles << " tiles, at most " << most << " parts: " << parts);
      CHECK(parts >= 1);
      CHECK((parts == 1 || parts <= most));
      CHECK(time(tiles, parts) <= 1.1 * best + 1e-9);
      for (std::int64_t p = 1; p < parts; ++p) CHECK(time(tiles, p) > 1.1 * best - 1e-9);
    }
  }
}

TEST_CASE("windows are read in place where words of 16 bytes hold whole channels", "[cuda]") {
  Matmul m;
  m.a = {nullptr, DType::bf16};
  m.a.windows = {2, 8, 8, 16, 8, 8, 3, 3, 1, 1, 1};
  m.b = {nullptr, DType::f32, 144, true};
  m.c = {nullptr, DType::bf16, 128, 37, 37, nullptr};
  m.depth = 144;
  m.compute = Compute::bf16;
  CHECK(reads_windows(m));
  CHECK(matmul_plan(m).bytes == aligned_bytes(37 * 144 * 2));  // the weight, in bf16
  const auto changed = [&](auto change) {
    Matmul other = m;
    change(other);
    return reads_windows(other);
  };
  const float bias = 0.0F;
  CHECK_FALSE(changed([](Matmul& x) { x.a.windows.channels = 12; }));
  CHECK_FALSE(changed([](Matmul& x) { x.a.windows.channels = x.depth = x.b.stride = 0; }));
  CHECK_FALSE(changed([](Matmul& x) { x.compute = Compute::fp32; }));
  CHECK_FALSE(changed([](Matmul& x) { x.a.dtype = DType::f32; }));
  CHECK_FALSE(changed([](Matmul& x) { x.c.dtype = DType::f16; }));
  CHECK_FALSE(changed([](Matmul& x) { x.b.transposed = false; }));
  CHECK_FALSE(changed([&](Matmul& x) { x.bias = &bias; }));
  CHECK_FALSE(changed([](Matmul& x) { x.accumulate = true; }));
  CHECK_FALSE(changed([](Matmul& x) { x.a.data = reinterpret_cast<const void*>(std::uintptr_t{8}); }));
  CHECK_FALSE(changed([](Matmul& x) {
    x.b.dtype = DType::bf16;
    x.b.stride = 148;
  }));
}

TEST_CASE("plain attention keeps its rows within shared memory", "[cuda]") {
  for (const std::int64_t d : {1, 64, 128, 160, 161, 1200, 2048}) {
    for (const int arrays : {2, 3, 4}) {
      const PlainAttention p = plain_attention(7, 45, d, arrays);
      CHECK(p.blocks_per_head * p.rows >= 45);
      CHECK(p.blocks == 7 * p.blocks_per_head);
      CHECK(p.shared_bytes <= 163 * 1024);  // of sm_80
    }
  }
}

TEST_CASE("tensor attention covers its tiles with few idle warps and fits shared memory", "[cuda]") {
  for (const std::int64_t limit : {163 * 1024, 227 * 1024}) {
    for (const std::int64_t d : {8, 64, 80, 88, 104, 112, 128}) {
      for (const std::int64_t own : {1, 16, 17, 50, 77, 197, 257, 577, 4096}) {
        for (const std::int64_t other : {1, 50, 257, 577, 4096}) {
          const TensorAttention t = tensor_attention(own, own, other, d, limit);
          CHECK(t.width >= d);
          CHECK(t.width % 16 == 0);
          CHECK(t.warps >= 1);
          CHECK(t.warps <= TensorAttention::kMostWarps);
          CHECK(t.chunk % 16 == 0);
          CHECK(t.chunk > 0);
          CHECK(t.shared_bytes <= limit);
          CHECK(t.shared_bytes >= t.chunk * 4 * (d + 8));
          if (t.chunk < other) CHECK(t.chunk % 64 == 0);  // tiles of 64 keys do not cross chunks
          if (t.chunk >= other) CHECK(t.splits == 1);
          CHECK((tensor_row_bytes(t.width) - 8) / 2 % 32 == 16);  // 8 rows of ldmatrix in different banks
        }
      }
    }
  }
  CHECK(tensor_attention(50, 50, 50, 64, 227 * 1024).warps == 4);
  CHECK(tensor_attention(77, 77, 77, 64, 227 * 1024).warps == 5);
  CHECK(tensor_attention(197, 197, 197, 64, 227 * 1024).warps == 7);
  CHECK(tensor_attention(257, 257, 257, 64, 227 * 1024).warps == 6);
  CHECK(tensor_attention(577, 577, 577, 64, 227 * 1024).splits == 1);
  CHECK(tensor_attention(577, 577, 577, 64, 163 * 1024).splits > 1);
  CHECK(tensor_attention(20, 77, 77, 64, 227 * 1024).warps == 2);  // packed captions
  CHECK(tensor_attention(0, 0, 0, 64, 227 * 1024).chunk == 16);
  CHECK(tensor_attention(577, 577, 577, 128, 48 * 1024).chunk == 64);
  CHECK(tensor_width(129) == 0);
}

TEST_CASE("tensor attention with two tiles a warp keeps to its registers and leaves no row out", "[cuda]") {
  for (const std::int64_t limit : {48 * 1024, 163 * 1024, 227 * 1024}) {
    for (const std::int64_t own : {0, 1, 16, 17, 33, 77, 197, 257, 577, 4096}) {
      for (const std::int64_t other : {0, 1, 50, 257, 577, 4096}) {
        const TensorAttention t = tensor_attention(own, own, other, 64, limit, 2), one = tensor_attention(own, own, other, 64, limit);
        CHECK(t.tiles == 2);
        CHECK(one.tiles == 1);
        CHECK(t.warps >= 1);
        CHECK(t.warps <= TensorAttention::kMostWarps);
        CHECK(t.chunk == one.chunk);
        CHECK(t.shared_bytes == one.shared_bytes);
        if (t.chunk >= other) CHECK(t.splits == 1);
        if (t.chunk < other) CHECK(t.splits * t.warps * 32 >= own);
        if (own > 0) CHECK(t.warps <= ceil_div(own, 32));
      }
    }
  }
  const auto warps = [](std::int64_t length, std::int64_t limit) {
    return tensor_attention(length, length, length, 64, limit * 1024, 2).warps;
  };
  CHECK(warps(197, 227) == 4);  // two blocks of four
  CHECK(warps(257, 227) == 4);
  CHECK(warps(197, 163) == 4);
  CHECK(warps(577, 227) == 7);  // one block has all of the shared memory
  CHECK(warps(577, 163) == 4);
  // Long sequences of narrow heads have two; whole captions and pictures in 50 parts do not.
  CHECK(tensor_tiles(197, 64) == 2);
  CHECK(tensor_tiles(257, 32) == 2);
  CHECK(tensor_tiles(197, 80) == 1);
  CHECK(tensor_tiles(77, 64) == 1);
  CHECK(tensor_tiles(50, 64) == 1);
}

}  // namespace twinlens::cuda
