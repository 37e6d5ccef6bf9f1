#include <algorithm>
#include <cmath>
#include <limits>

#include "tests/support/op_case.h"

#include "twinlens/core/ops.h"
#include "twinlens/kernels/philox.h"

namespace twinlens::test {
namespace {

StepBlock some_block() {
  StepBlock b;
  b.seed = 21;
  b.step = 3;
  return b;
}
// Keys point to it, so it outlives all cases.
const StepBlock kBlock = some_block();

// The block where an op on this device reads it.
const StepBlock* block_on(Device device) {
  if (device.is_cpu()) return &kBlock;
  static const Tensor on_card = step_block_on(kBlock, device);
  return static_cast<const StepBlock*>(on_card.raw());
}

// [0, 1) with 53 bits, from the words of kernels/sample.h.
double number(std::uint64_t site, std::uint64_t sample, std::uint64_t position) {
  const Philox4 bits = philox(mix(mix(kBlock.seed, kBlock.step), site), sample, position);
  return std::ldexp(static_cast<double>((std::uint64_t{bits.v[0]} << 32 | bits.v[1]) >> 11), -53);
}

OpCase make(const Shape& shape, bool logits, bool ids) {
  OpCase c;
  c.name = to_string(shape) + (logits ? " logits" : " weights") + (ids ? " row ids" : "");
  c.inputs = {random_input(shape, c.name, 2.0)};
  c.inputs[0].differentiable = false;
  if (!logits) {
    for (double& v : c.inputs[0].values.v) v = std::max(v, 0.0);  // zeros are never drawn
    for (std::int64_t r = 0; r < c.inputs[0].values.rows(); ++r) c.inputs[0].values[r * shape[-1] + r % shape[-1]] = 0.75;
  }
  const std::int64_t rows = c.inputs[0].values.rows();
  if (ids) {
    std::vector<std::int64_t> sample, position;
    for (std::int64_t r = 0; r < rows; ++r) {
      sample.push_back(r / 3 * 1'000'003 + 5);
      position.push_back(r % 3);
    }
    c.inputs.push_back(int_input({rows}, sample));
    c.inputs.push_back(int_input({rows}, position));
  }
  const std::uint64_t site = site_of(c.name);
  c.call = [=](const std::vector<Tensor>& in) {
    const RowIds row_ids = ids ? RowIds{in[1], in[2]} : RowIds{};
    const RandomKey key{block_on(in[0].device()), site};
    return logits ? sample_logits(in[0], key, row_ids) : sample(in[0], key, row_ids);
  };
  c.reference = [=](const std::vector<Array>& in) {
    Array y(in[0].shape.without(-1));
    const std::int64_t columns = in[0].cols();
    for (std::int64_t r = 0; r < in[0].rows(); ++r) {
      std::vector<double> up_to;
      double sum = 0.0;
      for (std::int64_t i = 0; i < columns; ++i) up_to.push_back(sum += logits ? std::exp(in[0][r * columns + i]) : in[0][r * columns + i]);
      const double u = ids ? number(site, static_cast<std::uint64_t>(in[1][r]), static_cast<std::uint64_t>(in[2][r]))
                           : number(site, static_cast<std::uint64_t>(r), 0);
      y[r] = static_cast<double>(std::upper_bound(up_to.begin(), up_to.end(), u * sum) - up_to.begin());
    }
    return y;
  };
  c.tolerance = c.bf16_tolerance = 1e-12;  // the very indices
  c.cuda = true;
  return c;
}

}  // namespace

OpCases op_cases_sample() {
  OpCases op;
  for (const bool logits : {false, true}) {
    for (const bool ids : {false, true}) {
      op.cases.push_back(make({1, 1}, logits, ids));
      op.cases.push_back(make({0, 8}, logits, ids));
      op.cases.push_back(make({7}, logits, ids));
      op.cases.push_back(make({41, 7}, logits, ids));
      op.cases.push_back(make({3, 50, 67}, logits, ids));
      op.cases.push_back(make({9, 1025}, logits, ids));
    }
  }
  const double inf = std::numeric_limits<double>::infinity();
  OpCase masked = make({40, 5}, true, false);
  masked.name += " masked and far from 0";
  for (std::int64_t r = 0; r < 40; ++r) {
    for (std::int64_t i = 0; i < 5; ++i)
      masked.inputs[0].values[r * 5 + i] = i == r % 5 ? -inf : (r % 2 == 0 ? 500.0 : -500.0) + static_cast<double>(i);
  }
  masked.reference = [reference = masked.reference](std::vector<Array> in) {
    for (std::int64_t i = 0; i < 200; ++i) in[0][i] -= i / 5 % 2 == 0 ? 500.0 : -500.0;
    return reference(in);
  };
  masked.bf16_tolerance = 0.0;
  op.cases.push_back(masked);
  OpCase bench = make({256, 8192}, true, false);
  bench.name = "tokens of a discrete VAE, one picture [256,8192]";
  bench.bf16_tolerance = 0.0;
  bench.bench = true;
  bench.bytes = 256.0 * 8192 * 4;
  op.cases.push_back(bench);

  const RandomKey key{&kBlock, 1};
  const auto of = [](const std::vector<float>& v) { return from_vector(v, {2, static_cast<std::int64_t>(v.size()) / 2}); };
  op.errors.push_back({"all 0", [=] { sample(of({0, 1, 0, 0}), key); }, {"sample", "row 1 is no distribution", "[2,2]"}});
  op.errors.push_back({"negative", [=] { sample(of({2, -1, 0, 1}), key); }, {"sample", "row 0"}});
  op.errors.push_back({"not a number", [=] { sample_logits(of({0, 1, 0, std::nanf("")}), key); }, {"sample_logits", "row 1"}});
  op.errors.push_back({"all masked", [=] { sample_logits(of({0, 1, -INFINITY, -INFINITY}), key); }, {"sample_logits", "row 1"}});
  op.errors.push_back({"infinite", [=] { sample(of({INFINITY, 1, 0, 1}), key); }, {"sample", "row 0"}});
  op.errors.push_back({"no columns", [=] { sample(zeros({4, 0}), key); }, {"sample", "at least one column", "[4,0]"}});
  op.errors.push_back({"no block", [] { sample(zeros({4, 2}), {}); }, {"sample", "no step block"}});
  op.errors.push_back({"integers", [=] { sample(zeros({4, 2}, DType::i64), key); }, {"sample", "i64"}});
  op.errors.push_back({"ids of another length",
                       [=] {
                         sample(zeros({4, 2}), key, {zeros({3}, DType::i64), {}});
                       },
                       {"sample", "one a row"}});
  return op;
}

}  // namespace twinlens::test
