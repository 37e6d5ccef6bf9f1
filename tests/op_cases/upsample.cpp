#include "tests/support/op_case.h"

#include "twinlens/core/ops.h"

namespace twinlens::test {
namespace {

Array reference(const Array& x, int factor) {
  const Shape in = x.shape;
  Array y({in[0], in[1] * factor, in[2] * factor, in[3]});
  const std::int64_t count = y.shape.count();
  for (std::int64_t at = 0; at < count; ++at) {
    const std::int64_t c = at % in[3], j = at / in[3] % y.shape[2], i = at / in[3] / y.shape[2] % y.shape[1];
    const std::int64_t b = at / in[3] / y.shape[2] / y.shape[1];
    y[at] = x[((b * in[1] + i / factor) * in[2] + j / factor) * in[3] + c];
  }
  return y;
}

OpCase make(const Shape& shape, int factor) {
  OpCase c;
  c.cuda = true;
  c.name = to_string(shape) + " x" + std::to_string(factor);
  c.inputs = {random_input(shape, c.name)};
  c.call = [factor](const std::vector<Tensor>& x) { return upsample_nearest(x[0], factor); };
  c.reference = [factor](const std::vector<Array>& x) { return reference(x[0], factor); };
  c.tolerance = 0.0;  // values only move
  return c;
}

}  // namespace

OpCases op_cases_upsample() {
  OpCases op;
  op.cases = {make({0, 2, 2, 3}, 2), make({1, 1, 1, 1}, 1), make({2, 3, 5, 19}, 2), make({1, 2, 3, 33}, 3)};
  OpCase bench = make({1, 28, 28, 128}, 2);
  bench.name = "VAE decoder, batch 1 [1,28,28,128] x2";
  bench.bench = true;
  bench.bytes = 1.0 * 28 * 28 * 128 * 4 * 5;
  op.cases.push_back(bench);
  op.errors.push_back({"factor 0", [] { upsample_nearest(zeros({1, 2, 2, 3}), 0); }, {"upsample_nearest", "not 0", "[1,2,2,3]"}});
  op.errors.push_back({"rank 3", [] { upsample_nearest(zeros({2, 2, 3}), 2); }, {"upsample_nearest", "(B, H, W, C)", "[2,2,3]"}});
  return op;
}

}  // namespace twinlens::test
