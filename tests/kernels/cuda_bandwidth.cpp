// How close the kernels that only move memory come to a plain copy: prints, and asks for nothing. Hidden; on a machine with a card:
//   build/cuda/bin/test_kernels "[bandwidth]"

#include <catch2/catch.hpp>
#include <cstdio>
#include <functional>
#include <string>
#include <vector>

#include "tests/kernels/cuda_measure.h"

#include "twinlens/kernels/adamw.h"
#include "twinlens/kernels/bias_gradient.h"
#include "twinlens/kernels/index_select.h"
#include "twinlens/kernels/layer_norm.h"
#include "twinlens/kernels/memory.h"
#include "twinlens/kernels/norm2.h"
#include "twinlens/kernels/random_fill.h"
#include "twinlens/kernels/softmax.h"
#include "twinlens/kernels/unary.h"

namespace twinlens {
namespace {

struct Table {
  double copy = 0.0;
  void row(const char* name, double bytes, const std::function<void()>& call) {
    const double r = bytes / seconds(call) * 1e-9;
    if (copy == 0.0) copy = r;
    std::printf("%-44s %8.0f GB/s  %5.1f %% of a copy\n", name, r, 100.0 * r / copy);
  }
};

// x and dx in `wide`, y and dy in `dtype`: a training step in bf16 keeps its residual stream in f32.
void measure_rows(Table& table, Stream& stream, std::int64_t rows, std::int64_t cols, DType wide, DType dtype) {
  const std::string types = wide == dtype ? name_of(dtype) : std::string(name_of(wide)) + " to " + name_of(dtype);
  const std::string name = "layer norm [" + std::to_string(rows) + "," + std::to_string(cols) + "] " + types;
  const Block x(rows * cols, wide), y(rows * cols, dtype), dx(rows * cols, wide);
  const Block gamma(cols, DType::f32), mean(rows, DType::f32), rstd(rows, DType::f32), dgamma(cols, DType::f32), dbeta(cols, DType::f32);
  const std::int64_t parts = (rows + LayerNormBackward::kRowsPerBlock - 1) / LayerNormBackward::kRowsPerBlock;
  const Block scratch(2 * parts * cols, DType::f32);
  const auto of_wide = static_cast<double>(rows * cols * size_of(wide)), of_short = static_cast<double>(rows * cols * size_of(dtype));
  table.row(name.c_str(), of_wide + of_short, [&] {
    run(stream, LayerNormForward{x.read_rows(rows), gamma.floats(), gamma.floats(), y.rows(rows), mean.floats(), rstd.floats(), 1e-5F});
  });
  table.row("  backward", 2.0 * of_wide + of_short, [&] {
    run(stream, LayerNormBackward{x.read_rows(rows), y.read_rows(rows), gamma.floats(), mean.floats(), rstd.floats(), dx.rows(rows),
                                  dgamma.floats(), dbeta.floats(), scratch.floats()});
  });
}

void measure_adamw(Table& table, Stream& stream) {
  constexpr std::int64_t kSegments = 300, kEach = 500'000, kAll = kSegments * (kEach + 32);
  std::vector<OptimizerSegment> segments;
  for (std::int64_t s = 0; s < kSegments; ++s) segments.push_back({s * (kEach + 32), kEach, 1.0F, 1.0F, 0, 0});
  const Memory on_card = allocate(stream, segments.size() * sizeof(OptimizerSegment));
  copy_bytes(stream, on_card.data(), kCard, segments.data(), kCpu, on_card.bytes());
  StepBlock step;
  step.learning_rate = 1e-6F;
  const Memory block = allocate(stream, sizeof step);
  copy_bytes(stream, block.data(), kCard, &step, kCpu, sizeof step);
  const Block value(kAll, DType::f32), gradient(kAll, DType::f32), shadow(kAll, DType::bf16);
  const Memory moments = allocate(stream, 2 * static_cast<std::size_t>(kAll) * sizeof(float));
  auto* moment1 = static_cast<float*>(moments.data());
  run(stream, Fill{{moments.data(), DType::f32, 2 * kAll}, 0.001});
  AdamW a{};
  a.segments = static_cast<const OptimizerSegment*>(on_card.data());
  a.segment_count = kSegments;
  a.extent = kAll;
  a.value = value.floats();
  a.gradient = gradient.floats();
  a.moment1 = moment1;
  a.moment2 = moment1 + kAll;
  a.shadow = static_cast<bf16*>(shadow.memory.data());
  a.beta1 = 0.9;
  a.beta2 = 0.98;
  a.eps = 1e-6;
  a.weight_decay = 0.2;
  a.step = static_cast<const StepBlock*>(block.data());
  table.row("adamw, 150 M parameters, bf16 shadow", 30.0 * kEach * kSegments, [&] { run(stream, a); });
  const Memory parts = allocate(stream, (static_cast<std::size_t>(kAll) / SumOfSquares::kBlock + 1) * 2 * sizeof(double));
  const Memory results = allocate(stream, 16);
  table.row("sum of squares, 150 M f32", 4.0 * kAll, [&] {
    run(stream, SumOfSquares{gradient.read(), static_cast<double*>(parts.data()), static_cast<float*>(results.data()),
                             static_cast<std::int64_t*>(results.data()) + 1});
  });
}

void measure_elementwise(Table& table, Stream& stream) {
  constexpr std::int64_t kRows = 65'536, kCols = 3072;
  const Block pre(kRows * kCols, DType::bf16), dy(kRows * kCols, DType::bf16), dpre(kRows * kCols, DType::bf16), dbias(kCols, DType::f32);
  const Block scratch(kRows / BiasGradient::kRowsPerBlock * kCols, DType::f32);
  constexpr double kBytes = 2.0 * kRows * kCols;
  table.row("gelu [65536,3072] bf16", 2.0 * kBytes, [&] { run(stream, UnaryForward{UnaryFunction::gelu, pre.read(), dpre.buffer()}); });
  table.row("quick gelu", 2.0 * kBytes, [&] { run(stream, UnaryForward{UnaryFunction::quick_gelu, pre.read(), dpre.buffer()}); });
  for (const Activation activation : {Activation::none, Activation::gelu, Activation::quick_gelu}) {
    BiasGradient a;
    a.dy = dy.read_rows(kRows);
    a.activation = activation;
    a.pre = pre.read_rows(kRows);
    if (activation != Activation::none) a.dpre = dpre.rows(kRows);
    a.dbias = dbias.floats();
    a.scratch = scratch.floats();
    const char* name = activation == Activation::none   ? "bias gradient"
                       : activation == Activation::gelu ? "  with gelu"
                                                        : "  with quick gelu";
    table.row(name, (activation == Activation::none ? 1.0 : 3.0) * kBytes, [&] { run(stream, a); });
  }
  table.row("softmax [65536,3072] bf16", 2.0 * kBytes, [&] { run(stream, SoftmaxForward{pre.read_rows(kRows), dpre.rows(kRows), false}); });
}

void measure_scatter(Table& table, Stream& stream) {
  constexpr std::int64_t kTokens = 655'360, kWidth = 512, kVocabulary = 49'408;
  std::vector<std::int64_t> ids;
  // As in captions: a start and an end in each of 20 tokens, words by a falling frequency.
  for (std::int64_t i = 0; i < kTokens; ++i) ids.push_back(i % 20 == 0 ? 49'406 : i % 20 == 19 ? 49'407 : (i * i % 7919) * (i % 6));
  const Memory on_card = allocate(stream, ids.size() * sizeof(std::int64_t));
  copy_bytes(stream, on_card.data(), kCard, ids.data(), kCpu, on_card.bytes());
  const Block x(kTokens * kWidth, DType::bf16), y(kVocabulary * kWidth, DType::f32);
  const ScatterPlan plan = scatter_plan(1, kVocabulary, kTokens, kWidth);
  const Memory scratch = allocate(stream, static_cast<std::size_t>(plan.words) * 4);
  const auto* at = static_cast<const std::int64_t*>(on_card.data());
  table.row("scatter add of 655360 tokens, 512 wide", 2.0 * kTokens * kWidth, [&] {
    run(stream, ScatterAdd{x.read(), at, y.floats(), 1, kVocabulary, kTokens, kWidth, static_cast<std::uint32_t*>(scratch.data())});
  });
  const Block out(kTokens * kWidth, DType::bf16), from(kVocabulary * kWidth, DType::bf16);
  table.row("  and their selection", 2.0 * kTokens * kWidth, [&] {
    run(stream, IndexSelect{from.read(), at, out.buffer(), 1, kVocabulary, kTokens, kWidth});
  });
}

}  // namespace

TEST_CASE("bandwidth of CUDA kernels", "[.][cuda][bandwidth]") {
  if (cuda_device_count() == 0) return;  // device.cpp says why
  Stream& stream = current_stream(kCard);
  Table table;
  {
    const Block x(std::int64_t{1} << 28, DType::f32), y(std::int64_t{1} << 28, DType::f32);
    table.row("copy of 1 GiB", 2.0 * 4.0 * static_cast<double>(x.count),
              [&] { copy_bytes(stream, y.memory.data(), kCard, x.memory.data(), kCard, x.memory.bytes()); });
  }
  // The widths of CLIP's towers, text and image, S to bigG.
  for (const std::int64_t cols : {384, 512, 640, 768, 896, 1024, 1152, 1280, 1408, 1664, 1792}) {
    measure_rows(table, stream, cols <= 1024 ? 201'728 : 100'864, cols, DType::bf16, DType::bf16);
  }
  for (const DType dtype : {DType::f32, DType::bf16}) {
    for (const std::int64_t cols : {512, 768, 1024, 1280}) measure_rows(table, stream, 100'864, cols, DType::f32, dtype);
  }
  measure_adamw(table, stream);
  measure_elementwise(table, stream);
  measure_scatter(table, stream);
}

}  // namespace twinlens
