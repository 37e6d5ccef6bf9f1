// Attention and the products of ViT-B/32 on a card: prints useful TFLOP/s, and asks for nothing. Hidden:
//   build/cuda/bin/test_kernels "[tensor-speed]"

#include <catch2/catch.hpp>
#include <cstdio>
#include <string>
#include <vector>

#include "tests/kernels/cuda_measure.h"

#include "twinlens/kernels/attention.h"
#include "twinlens/kernels/matmul.h"

namespace twinlens {
namespace {

void print(const std::string& name, double time, double flops, double bytes) {
  std::printf("%-52s %8.1f us %7.1f TFLOP/s %6.0f GB/s\n", name.c_str(), time * 1e6, flops / time * 1e-12, bytes / time * 1e-9);
}

// Self-attention of `sequences` equal lengths in bf16, q, k and v as the thirds of one matrix. Useful operations: two products of T x T x D
// forwards and five backwards, half of them where it is causal. `row_tiles` of a warp, or 0: what it has by itself.
void measure_attention(Stream& stream, std::int64_t sequences, std::int64_t length, std::int64_t heads, bool causal, int row_tiles = 0) {
  constexpr std::int64_t kDim = 64;
  const std::int64_t rows = sequences * length, width = heads * kDim;
  const Block qkv(rows * 3 * width, DType::bf16), dqkv(rows * 3 * width, DType::bf16);
  const Block y(rows * width, DType::bf16), dy(rows * width, DType::bf16), lse(heads * rows, DType::f32), delta(heads * rows, DType::f32);
  std::vector<std::int64_t> at;
  for (std::int64_t s = 0; s <= sequences; ++s) at.push_back(s * length);
  const Memory offsets = allocate(stream, at.size() * sizeof(std::int64_t));
  copy_bytes(stream, offsets.data(), kCard, at.data(), kCpu, offsets.bytes());

  const auto third = [&](const Block& x, std::int64_t which) {
    Rows r = x.rows(rows);
    r.data = static_cast<char*>(r.data) + which * width * size_of(DType::bf16);
    r.cols = width;
    return r;
  };
  const auto read_third = [&](std::int64_t which) {
    const Rows r = third(qkv, which);
    return ConstRows{r.data, r.dtype, r.rows, r.cols, r.stride, nullptr};
  };
  AttentionProblem p{};
  p.q = read_third(0);
  p.k = read_third(1);
  p.v = read_third(2);
  p.query_offsets = p.key_offsets = static_cast<const std::int64_t*>(offsets.data());
  p.sequences = sequences;
  p.heads = heads;
  p.head_dim = kDim;
  p.longest_query = p.longest_key = length;
  p.causal = causal;
  p.scale = 0.125F;
  p.scratch = delta.floats();
  p.slots = 1;
  p.row_tiles = row_tiles;
  const AttentionForward forward{p, y.rows(rows), lse.floats()};
  const AttentionBackward backward{p, y.read_rows(rows), dy.read_rows(rows), lse.floats(), third(dqkv, 0), third(dqkv, 1), third(dqkv, 2)};

  const double scores = static_cast<double>(sequences * length * length) * (causal ? 0.5 : 1.0);
  const double product = 2.0 * scores * static_cast<double>(width), element = 2.0 * static_cast<double>(rows * width);
  const std::string name = "attention " + std::to_string(sequences) + " x " + std::to_string(length) + (causal ? " causal" : "") + ", " +
                           std::to_string(heads) + " heads" +
                           (row_tiles == 0 ? "" : ", " + std::to_string(16 * row_tiles) + " rows a warp");
  print(name, seconds([&] { run(stream, forward); }), 2.0 * product, 4.0 * element);
  print("  forward and backward", seconds([&] {
          run(stream, forward);
          run(stream, backward);
        }),
        7.0 * product, 12.0 * element);
}

struct Product {
  const char* name;
  std::int64_t rows, cols, depth;
  bool a_transposed = false, b_transposed = true;  // weights are stored (out, in)
  bool bias = false, residual = false, accumulate = false;
  Activation activation = Activation::none;
  bool wide = false;  // residual and result in f32
};

void measure_product(Stream& stream, const Product& x) {
  const Block a(x.rows * x.depth, DType::bf16), b(x.depth * x.cols, DType::bf16), bias(x.cols, DType::f32);
  const Block c(x.rows * x.cols, x.accumulate || x.wide ? DType::f32 : DType::bf16), pre(x.rows * x.cols, DType::bf16),
      residual(x.rows * x.cols, x.wide ? DType::f32 : DType::bf16);
  Matmul m;
  m.a = {a.memory.data(), DType::bf16, x.a_transposed ? x.rows : x.depth, x.a_transposed, 0};
  m.b = {b.memory.data(), DType::bf16, x.b_transposed ? x.depth : x.cols, x.b_transposed, 0};
  m.c = c.rows(x.rows);
  m.depth = x.depth;
  m.compute = Compute::bf16;
  m.accumulate = x.accumulate;
  if (x.bias) m.bias = bias.floats();
  m.activation = x.activation;
  if (x.activation != Activation::none) m.pre = pre.rows(x.rows);
  if (x.residual) m.residual = residual.read_rows(x.rows);
  const Memory scratch = allocate(stream, static_cast<std::size_t>(cuda_scratch_bytes(m)) + 1);
  const Memory workspace = allocate(stream, static_cast<std::size_t>(kMatmulWorkspace));
  m.scratch = scratch.data();
  m.workspace = workspace.data();
  const auto size = [](std::int64_t r, std::int64_t n) { return static_cast<double>(r * n); };
  const double written = x.accumulate ? 8.0 : x.wide ? 4.0 : 2.0, added = !x.residual ? 0.0 : x.wide ? 4.0 : 2.0;
  const double results = written + added + (x.activation != Activation::none ? 2.0 : 0.0);
  print(x.name, seconds([&] { run(stream, m); }), 2.0 * size(x.rows, x.cols) * static_cast<double>(x.depth),
        2.0 * (size(x.rows, x.depth) + size(x.depth, x.cols)) + results * size(x.rows, x.cols));
}

}  // namespace

TEST_CASE("speed of CUDA's attention and products", "[.][cuda][tensor-speed]") {
  if (cuda_device_count() == 0) return;  // device.cpp says why
  Stream& stream = current_stream(kCard);
  measure_attention(stream, 1024, 50, 12, false);
  measure_attention(stream, 1024, 77, 8, true);
  measure_attention(stream, 256, 197, 12, false);
  measure_attention(stream, 256, 257, 16, false);
  for (const int row_tiles : {1, 2}) {
    measure_attention(stream, 1024, 50, 12, false, row_tiles);
    measure_attention(stream, 1024, 77, 8, true, row_tiles);
    measure_attention(stream, 256, 197, 12, false, row_tiles);
    measure_attention(stream, 256, 257, 16, false, row_tiles);
    measure_attention(stream, 64, 577, 16, false, row_tiles);
  }

  constexpr std::int64_t kRows = 51'200, kWidth = 768, kWide = 3072;  // 1024 pictures of 50 tokens
  Product qkv{"qkv: bias", kRows, 3 * kWidth, kWidth};
  qkv.bias = true;
  Product out{"attention out: bias + residual", kRows, kWidth, kWidth};
  out.bias = out.residual = true;
  Product fc1{"fc1: bias + quick_gelu, pre kept", kRows, kWide, kWidth};
  fc1.bias = true;
  fc1.activation = Activation::quick_gelu;
  Product exact{"fc1: bias + gelu, pre kept", kRows, kWide, kWidth};
  exact.bias = true;
  exact.activation = Activation::gelu;
  Product fc2{"fc2: bias + residual", kRows, kWidth, kWide};
  fc2.bias = fc2.residual = true;
  Product wide_out = out, wide_fc2 = fc2;  // as a training step has them
  wide_out.name = "attention out: bias + residual, both f32";
  wide_fc2.name = "fc2: bias + residual, both f32";
  wide_out.wide = wide_fc2.wide = true;
  Product plain{"fc1: nothing", kRows, kWide, kWidth};
  Product dx{"fc1: dx", kRows, kWidth, kWide};
  dx.b_transposed = false;
  Product dw{"fc1: dw accumulated in f32", kWide, kWidth, kRows};
  dw.a_transposed = true;
  dw.b_transposed = false;
  dw.accumulate = true;
  Product narrow{"attention out: dw accumulated in f32", kWidth, kWidth, kRows};
  narrow.a_transposed = true;
  narrow.b_transposed = false;
  narrow.accumulate = true;
  for (const Product& product : {qkv, out, wide_out, plain, fc1, exact, fc2, wide_fc2, dx, dw, narrow}) measure_product(stream, product);
}

}  // namespace twinlens
