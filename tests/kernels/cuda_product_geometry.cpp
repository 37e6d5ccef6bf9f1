// What products, attention and batch norm are cut into on a card, and where their fragments lie: checked on any machine.

#include <array>
#include <catch2/catch.hpp>
#include <utility>
#include <vector>

#include "kernels/cuda/geometry.h"
#include "kernels/cuda/matmul_plan.h"
#include "kernels/cuda/mma_map.h"

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

// --- mma.m16n8k16 and ldmatrix, emulated as the PTX ISA describes them
// ----------------------------------------------------------------------
namespace {

using Pair = std::array<int, 2>;
using Fragment = std::array<Pair, 4>;  // four registers of a lane
using Sums = std::array<int, 4>;

struct Matrix {
  int rows, cols;
  std::vector<int> v;
  int& at(int r, int c) { return v[static_cast<std::size_t>(r * cols + c)]; }
  int at(int r, int c) const { return v[static_cast<std::size_t>(r * cols + c)]; }
};

Matrix numbers(int rows, int cols, int seed) {
  Matrix m{rows, cols, std::vector<int>(static_cast<std::size_t>(rows * cols))};
  for (int i = 0; i < rows * cols; ++i) m.v[static_cast<std::size_t>(i)] = (i * 7 + seed * 13 + i / 5) % 11 - 5;
  return m;
}

// ldmatrix.x4: lane 8 m + i names the row that becomes row i of matrix m.
std::array<Fragment, 32> load(const Matrix& x, int row, int col, TilePlace (*place)(int), bool turned) {
  std::array<Fragment, 32> r{};
  for (int lane = 0; lane < 32; ++lane) {
    for (int m = 0; m < 4; ++m) {
      for (int e = 0; e < 2; ++e) {
        const int i = turned ? lane % 4 * 2 + e : lane / 4, j = turned ? lane / 4 : lane % 4 * 2 + e;
        const TilePlace at = place(8 * m + i);
        r[static_cast<std::size_t>(lane)][static_cast<std::size_t>(m)][static_cast<std::size_t>(e)] = x.at(row + at.row, col + at.col + j);
      }
    }
  }
  return r;
}

// c (16 x 8) += a (16 x 16) b (16 x 8), gathered from and given back to the lanes' registers.
void multiply(std::array<Sums, 32>& c, const std::array<Fragment, 32>& a, const std::array<Fragment, 32>& b, int first) {
  Matrix full_a{16, 16, std::vector<int>(256)}, full_b{16, 8, std::vector<int>(128)};
  for (int lane = 0; lane < 32; ++lane) {
    const int g = lane / 4, t = lane % 4;
    const auto l = static_cast<std::size_t>(lane);
    for (int e = 0; e < 2; ++e) {
      const auto k = static_cast<std::size_t>(e);
      for (int part = 0; part < 4; ++part) full_a.at(g + part % 2 * 8, 2 * t + e + part / 2 * 8) = a[l][static_cast<std::size_t>(part)][k];
      full_b.at(2 * t + e, g) = b[l][static_cast<std::size_t>(first)][k];
      full_b.at(2 * t + e + 8, g) = b[l][static_cast<std::size_t>(first) + 1][k];
    }
  }
  for (int lane = 0; lane < 32; ++lane) {
    for (int e = 0; e < 4; ++e) {
      for (int k = 0; k < 16; ++k) {
        c[static_cast<std::size_t>(lane)][static_cast<std::size_t>(e)] +=
            full_a.at(lane / 4 + e / 2 * 8, k) * full_b.at(k, lane % 4 * 2 + e % 2);
      }
    }
  }
}

// load_own() of device/attention_tile.cuh: the `a` of 16 rows, columns [col, col + 16).
std::array<Fragment, 32> own_fragment(const Matrix& x, int col) {
  std::array<Fragment, 32> a{};
  for (int lane = 0; lane < 32; ++lane) {
    for (int part = 0; part < 4; ++part) {
      for (int e = 0; e < 2; ++e) {
        a[static_cast<std::size_t>(lane)][static_cast<std::size_t>(part)][static_cast<std::size_t>(e)] =
            x.at(lane / 4 + part % 2 * 8, col + part / 2 * 8 + lane % 4 * 2 + e);
      }
    }
  }
  return a;
}

TilePlace columns_place(int lane) { return place_of_columns(lane); }
TilePlace depths_place(int lane) { return place_of_depths(lane); }

}  // namespace

TEST_CASE("fragments of tensor attention multiply as matrices do", "[cuda]") {
  const Matrix q = numbers(16, 32, 1), k = numbers(16, 32, 2), v = numbers(16, 32, 3);
  std::array<Sums, 32> low{}, high{};
  for (int step = 0; step < 2; ++step) {  // dot_tile()
    const auto a = own_fragment(q, step * 16);
    const auto b = load(k, 0, step * 16, columns_place, false);
    multiply(low, a, b, 0);
    multiply(high, a, b, 2);
  }
  std::array<Fragment, 32> weights{};
  for (std::size_t lane = 0; lane < 32; ++lane) {  // add_tile()
    weights[lane] = {Pair{low[lane][0], low[lane][1]}, Pair{low[lane][2], low[lane][3]}, Pair{high[lane][0], high[lane][1]},
                     Pair{high[lane][2], high[lane][3]}};
  }
  std::array<std::array<Sums, 32>, 4> out{};
  for (int step = 0; step < 2; ++step) {
    const auto b = load(v, 0, step * 16, depths_place, true);
    multiply(out[static_cast<std::size_t>(2 * step)], weights, b, 0);
    multiply(out[static_cast<std::size_t>(2 * step + 1)], weights, b, 2);
  }
  bool equal = true;
  for (int i = 0; i < 16; ++i) {
    for (int d = 0; d < 32; ++d) {
      int want = 0;
      for (int j = 0; j < 16; ++j) {
        int score = 0;
        for (int x = 0; x < 32; ++x) score += q.at(i, x) * k.at(j, x);
        want += score * v.at(j, d);
      }
      const int lane = i % 8 * 4 + d % 8 / 2, e = i / 8 * 2 + d % 2;
      equal = equal && out[static_cast<std::size_t>(d / 8)][static_cast<std::size_t>(lane)][static_cast<std::size_t>(e)] == want;
    }
  }
  CHECK(equal);
}

}  // namespace twinlens::cuda
