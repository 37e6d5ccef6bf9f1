#include <cmath>

#include "tests/support/op_case.h"

#include "twinlens/core/ops.h"

namespace twinlens::test {
namespace {

Array reference(const Array& x, double eps) {
  Array y(x.shape);
  const std::int64_t c = x.cols();
  for (std::int64_t r = 0; r < x.rows(); ++r) {
    double squares = 0.0;
    for (std::int64_t i = 0; i < c; ++i) squares += x[r * c + i] * x[r * c + i];
    for (std::int64_t i = 0; i < c; ++i) y[r * c + i] = x[r * c + i] / std::max(std::sqrt(squares), eps);
  }
  return y;
}

OpCase make(const Shape& shape, double scale = 1.0, double eps = 1e-12) {
  OpCase c;
  c.cuda = true;
  c.name = to_string(shape) + " scale " + std::to_string(scale);
  c.inputs = {random_input(shape, c.name, scale)};
  c.call = [eps](const std::vector<Tensor>& in) { return l2_normalize(in[0], eps); };
  c.reference = [eps](const std::vector<Array>& in) { return reference(in[0], eps); };
  return c;
}

}  // namespace

OpCases op_cases_l2_normalize() {
  OpCases op;
  for (const Shape& shape : {Shape{0, 8}, Shape{7}, Shape{3, 2}, Shape{2, 3, 33}, Shape{33, 512}}) op.cases.push_back(make(shape));
  op.cases.push_back(make({3, 1}));
  op.cases.back().absolute = 1e-6;  // one column: y = +-1 and the gradient is 0, what remains is rounding
  op.cases.push_back(make({3, 40}, 1e6));
  op.cases.back().absolute = 1e-10;
  op.cases.push_back(make({3, 40}, 1e-3, 1.0));  // shorter than eps: a constant divisor
  OpCase zero = make({2, 5}, 1.0, 0.5);
  zero.name = "a row of zeros";
  for (std::int64_t i = 0; i < 5; ++i) zero.inputs[0].values[i] = 0.0;
  op.cases.push_back(zero);
  OpCase bench = make({4096, 512});
  bench.name = "features of 4096 pairs [4096,512]";
  bench.bench = true;
  bench.flops = 4096.0 * 512 * 3;
  bench.bytes = 4096.0 * 512 * 8;
  bench.inputs[0].differentiable = false;  // differences of so large a reference would take minutes
  op.cases.push_back(bench);
  op.errors.push_back({"integer x", [] { l2_normalize(zeros({4, 8}, DType::i64)); }, {"l2_normalize", "[4,8] i64"}});
  return op;
}

}  // namespace twinlens::test
