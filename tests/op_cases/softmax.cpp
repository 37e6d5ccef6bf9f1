#include <algorithm>
#include <cmath>

#include "tests/support/op_case.h"

#include "twinlens/core/ops.h"

namespace twinlens::test {
namespace {

Array reference(const Array& x, bool log) {
  Array y(x.shape);
  const std::int64_t c = x.cols();
  for (std::int64_t r = 0; r < x.rows(); ++r) {
    const double* row = &x.v[static_cast<std::size_t>(r * c)];
    const double* largest = std::max_element(row, row + c);
    double rest = 0.0;  // without the largest: differences of a result near 0 keep their digits
    for (std::int64_t i = 0; i < c; ++i) rest += row + i == largest ? 0.0 : std::exp(row[i] - *largest);
    for (std::int64_t i = 0; i < c; ++i) {
      y[r * c + i] = log ? row[i] - *largest - std::log1p(rest) : std::exp(row[i] - *largest) / (1.0 + rest);
    }
  }
  return y;
}

OpCase make(const Shape& shape, bool log, double scale = 1.0) {
  OpCase c;
  c.cuda = true;
  c.name = std::string(log ? "log_softmax " : "softmax ") + to_string(shape) + (scale != 1.0 ? " scaled" : "");
  c.inputs = {random_input(shape, c.name, scale)};
  c.call = [log](const std::vector<Tensor>& in) { return log ? log_softmax(in[0]) : softmax(in[0]); };
  c.reference = [log](const std::vector<Array>& in) { return reference(in[0], log); };
  return c;
}

OpCase fixed(const std::string& name, const Shape& shape, const std::vector<double>& values, bool log) {
  OpCase c = make(shape, log);
  c.name = name;
  c.inputs[0].values.v = values;
  return c;
}

}  // namespace

OpCases op_cases_softmax() {
  OpCases op;
  for (const bool log : {false, true}) {
    for (const Shape& shape : {Shape{1, 1}, Shape{0, 8}, Shape{5}, Shape{3, 7}, Shape{2, 3, 17}, Shape{5, 65}, Shape{3, 197}}) {
      op.cases.push_back(make(shape, log));
    }
    op.cases.push_back(make({4, 100}, log, 30.0));  // logits of a trained CLIP: a few columns hold all the mass
    op.cases.back().bf16_tolerance = 0.0;           // a probability rounded to 1 leaves nothing of the gradient p (1 - p)
  }
  // exp would overflow or underflow without the maximum taken off
  op.cases.push_back(fixed("far from zero", {2, 3}, {100.0, 101.0, 99.0, -100.0, -100.5, -103.0}, false));
  const double inf = std::numeric_limits<double>::infinity();
  op.cases.push_back(fixed("masked columns", {1, 4}, {0.5, -inf, 1.0, -inf}, false));
  op.cases.back().inputs[0].differentiable = false;  // differences of infinity
  // Column 1 holds all but e^-17: of its log-probability, -4e-8, x - logsumexp would keep nothing.
  OpCase certain = fixed("all but certain", {1, 2}, {4.0, 21.0}, true);
  certain.call = [](const std::vector<Tensor>& in) { return affine(log_softmax(in[0]).slice(1, 1, 2), 1e8, 0.0); };
  certain.reference = [](const std::vector<Array>& in) { return Array({1, 1}, 1e8 * reference(in[0], true)[1]); };
  certain.inputs[0].differentiable = false;  // dy - p sum dy does cancel: cross_entropy is the op for such losses
  certain.f16 = false;                       // -4e-8 is below f16's range, before affine() brings it into sight
  op.cases.push_back(certain);

  OpCase bench = make({1024, 1000}, false);
  bench.name = "zero-shot probabilities, 1024 images of 1000 classes [1024,1000]";
  bench.inputs[0].differentiable = false;  // differences of so large a reference would take minutes
  bench.bench = true;
  bench.flops = 1024.0 * 1000 * 2 * 20;
  bench.bytes = 1024.0 * 1000 * 8;
  op.cases.push_back(bench);

  op.errors.push_back({"integer x", [] { softmax(zeros({4, 8}, DType::i64)); }, {"softmax", "[4,8] i64"}});
  op.errors.push_back({"scalar x", [] { log_softmax(scalar(1.0F)); }, {"log_softmax", "at least one dimension"}});
  return op;
}

}  // namespace twinlens::test
