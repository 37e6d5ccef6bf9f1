#include <cmath>

#include "tests/support/op_case.h"

#include "twinlens/core/ops.h"
#include "twinlens/kernels/philox.h"

namespace twinlens::test {
namespace {

StepBlock block_of(std::uint64_t seed, std::uint64_t step) {
  StepBlock b;
  b.seed = seed;
  b.step = step;
  return b;
}
// Keys point to it, so it outlives all cases.
const StepBlock kBlock = block_of(7, 41);

// The block where an op on this device reads it.
const StepBlock* block_on(Device device) {
  if (device.is_cpu()) return &kBlock;
  static const Tensor on_card = step_block_on(kBlock, device);
  return static_cast<const StepBlock*>(on_card.raw());
}

// The random number of an element, from the words of kernels/dropout.h.
double number(std::uint64_t site, std::int64_t sample, std::int64_t position, std::int64_t columns, std::int64_t column) {
  const std::uint64_t key = mix(mix(kBlock.seed, kBlock.step), site);
  const auto at = static_cast<std::uint64_t>(position * columns + column);
  return static_cast<double>(philox(key, static_cast<std::uint64_t>(sample), at / 4).v[at % 4]) / 4294967296.0;
}

// Inputs x, then sample ids and positions where `ids`.
OpCase make(const Shape& shape, double p, bool ids) {
  OpCase c;
  c.name = to_string(shape) + " p = " + std::to_string(p) + (ids ? " row ids" : "");
  c.inputs = {random_input(shape, c.name)};
  if (ids) {
    std::vector<std::int64_t> sample, position;
    for (std::int64_t r = 0; r < shape[0]; ++r) {
      sample.push_back(r / 3 * 1'000'003 + 5);
      position.push_back(r % 3);
    }
    c.inputs.push_back(int_input({shape[0]}, sample));
    c.inputs.push_back(int_input({shape[0]}, position));
  }
  const std::uint64_t site = site_of(c.name);
  c.call = [=](const std::vector<Tensor>& in) {
    return dropout(in[0], p, {block_on(in[0].device()), site}, ids ? RowIds{in[1], in[2]} : RowIds{});
  };
  c.reference = [=](const std::vector<Array>& in) {
    Array y = in[0];
    const std::int64_t rows = in[0].shape[0], columns = rows > 0 ? y.shape.count() / rows : 0;
    for (std::int64_t i = 0; i < y.shape.count(); ++i) {
      const std::int64_t r = i / columns;
      const double u = ids ? number(site, static_cast<std::int64_t>(in[1][r]), static_cast<std::int64_t>(in[2][r]), columns, i % columns)
                           : number(site, r, 0, columns, i % columns);
      y[i] = u < p ? 0.0 : y[i] / (1.0 - p);
    }
    return y;
  };
  c.cuda = true;
  return c;
}

}  // namespace

OpCases op_cases_dropout() {
  OpCases op;
  for (const bool ids : {false, true}) {
    op.cases.push_back(make({0, 8}, 0.5, ids));
    op.cases.push_back(make({1}, 0.5, ids));
    op.cases.push_back(make({9, 7}, 0.25, ids));
    op.cases.push_back(make({7, 12}, 0.25, ids));  // rows of whole words on a card
    op.cases.push_back(make({5, 3, 67}, 0.1, ids));
    op.cases.push_back(make({40, 129}, 0.9, ids));
  }
  op.cases.push_back(make({6, 5}, 0.0, false));
  OpCase bench = make({1600, 768}, 0.1, false);
  bench.name = "ViT-B/32 image rows, batch 32 [1600,768]";
  bench.inputs[0].differentiable = false;  // differences of so large a reference would take long
  bench.bench = true;
  bench.bytes = 1600.0 * 768 * 8;
  op.cases.push_back(bench);

  op.errors.push_back({"probability 1", [] { dropout(zeros({4, 8}), 1.0, {&kBlock, 1}); }, {"dropout", "must be in [0, 1)", "[4,8]"}});
  op.errors.push_back({"no block", [] { dropout(zeros({4, 8}), 0.5, {}); }, {"dropout", "no step block"}});
  op.errors.push_back({"ids of another length",
                       [] {
                         dropout(zeros({4, 8}), 0.5, {&kBlock, 1}, {zeros({3}, DType::i64), {}});
                       },
                       {"dropout", "one a row", "[4,8]", "[3]"}});
  op.errors.push_back({"integers", [] { dropout(zeros({4, 8}, DType::i64), 0.5, {&kBlock, 1}); }, {"dropout", "i64"}});
  return op;
}

}  // namespace twinlens::test
