#include <cmath>

#include "tests/support/op_case.h"

#include "twinlens/core/ops.h"

namespace twinlens::test {
namespace {

// log-sum-exp of the row minus x_t as log1p of the other columns relative to t: keeps its digits however small it is.
double loss_against(const Array& x, std::int64_t row, std::int64_t target) {
  double others = 0.0;
  for (std::int64_t j = 0; j < x.cols(); ++j) {
    if (j != target) others += std::exp(x[row * x.cols() + j] - x[row * x.cols() + target]);
  }
  return std::log1p(others);
}

Array hard_reference(const std::vector<Array>& in, double ignore) {
  double total = 0.0, counted = 0.0;
  for (std::int64_t r = 0; r < in[0].rows(); ++r) {
    if (in[1][r] == ignore) continue;
    total += loss_against(in[0], r, static_cast<std::int64_t>(in[1][r]));
    counted += 1.0;
  }
  return Array({}, counted > 0.0 ? total / counted : 0.0);
}

Array soft_reference(const std::vector<Array>& in) {
  double total = 0.0;
  for (std::int64_t r = 0; r < in[0].rows(); ++r) {
    for (std::int64_t j = 0; j < in[0].cols(); ++j) total += in[1][r * in[0].cols() + j] * loss_against(in[0], r, j);
  }
  return Array({}, in[0].rows() > 0 ? total / static_cast<double>(in[0].rows()) : 0.0);
}

// Targets on the diagonal, as in InfoNCE. The loss is scaled by `factor`, so that a tiny one is compared by its relative error.
OpCase diagonal(const std::string& name, std::int64_t rows, std::int64_t columns, double matched, double factor = 1.0) {
  OpCase c;
  c.cuda = true;
  c.name = name;
  std::vector<std::int64_t> targets;
  for (std::int64_t r = 0; r < rows; ++r) targets.push_back(r % columns);
  c.inputs = {random_input({rows, columns}, name), int_input({rows}, targets)};
  for (std::int64_t r = 0; r < rows; ++r) c.inputs[0].values[r * columns + r % columns] += matched;
  c.call = [factor](const std::vector<Tensor>& in) { return affine(cross_entropy(in[0], in[1]), factor, 0.0); };
  c.reference = [factor](const std::vector<Array>& in) { return Array({}, factor * hard_reference(in, -100)[0]); };
  return c;
}

OpCase soft(const std::string& name, std::int64_t rows, std::int64_t columns, double sharpness) {
  OpCase c;
  c.cuda = true;
  c.name = name;
  c.inputs = {random_input({rows, columns}, name, 2.0), parameter_input({rows, columns}, name + " targets", sharpness)};
  Array& q = c.inputs[1].values;
  for (std::int64_t r = 0; r < rows; ++r) {
    double sum = 0.0;
    for (std::int64_t j = 0; j < columns; ++j) sum += q[r * columns + j] = std::exp(q[r * columns + j]);
    for (std::int64_t j = 0; j < columns; ++j) q[r * columns + j] = static_cast<double>(static_cast<float>(q[r * columns + j] / sum));
  }
  c.call = [](const std::vector<Tensor>& in) { return soft_cross_entropy(in[0], in[1]); };
  c.reference = soft_reference;
  return c;
}

// One-hot targets on logits that match them: the value and the logits' gradient are those of the hard loss.
OpCase soft_one_hot() {
  OpCase c = diagonal("one-hot, nearly matched", 5, 33, 14.0);
  const std::int64_t columns = 33;
  c.inputs[1] = parameter_input({5, columns}, "");
  for (double& v : c.inputs[1].values.v) v = 0.0;
  for (std::int64_t r = 0; r < 5; ++r) c.inputs[1].values[r * columns + r] = 1.0;
  c.inputs[1].differentiable = false;
  c.call = [](const std::vector<Tensor>& in) { return affine(soft_cross_entropy(in[0], in[1]), 1e5, 0.0); };
  c.reference = [](const std::vector<Array>& in) { return Array({}, 1e5 * soft_reference(in)[0]); };
  return c;
}

void add_errors(OpCases& op) {
  op.errors.push_back({"one target too few",
                       [] {
                         cross_entropy(zeros({4, 8}), zeros({3}, DType::i64));
                       },
                       {"cross_entropy", "one target per row", "[4,8]", "[3]"}});
  op.errors.push_back({"target out of range",
                       [] {
                         cross_entropy(zeros({2, 3}), from_vector(std::vector<std::int64_t>{1, 3}, {2}));
                       },
                       {"cross_entropy", "index 3 at position 1", "[0, 3)"}});
  op.errors.push_back({"float targets", [] { cross_entropy(zeros({4, 8}), zeros({4})); }, {"cross_entropy", "targets must be i64"}});
  op.errors.push_back({"soft targets of another shape",
                       [] {
                         soft_cross_entropy(zeros({4, 8}), zeros({4, 7}));
                       },
                       {"soft_cross_entropy", "[4,8]", "[4,7]"}});
}

}  // namespace

OpCases op_cases_cross_entropy() {
  OpCases op;
  op.cases.push_back(diagonal("[0,8]", 0, 8, 0.0));
  op.cases.push_back(diagonal("[1,1]", 1, 1, 0.0));
  op.cases.push_back(diagonal("[3,7]", 3, 7, 0.0));
  op.cases.push_back(diagonal("[5,65]", 5, 65, 0.0));
  op.cases.push_back(diagonal("[37,37] badly matched", 37, 37, -20.0));
  // The others' share is about 1e-6, 1e-8 and 1e-16: log-sum-exp minus the target would keep no digit of it.
  op.cases.push_back(diagonal("nearly matched", 9, 33, 17.0, 1e6));
  op.cases.push_back(diagonal("all but matched", 9, 33, 40.0, 1e16));
  for (std::size_t i = op.cases.size() - 2; i < op.cases.size(); ++i) op.cases[i].bf16_tolerance = 0.0;  // a bf16 logit of 40 is off by 0.1
  op.cases.push_back(diagonal("matched at logit scale 100", 16, 16, 100.0));                             // 0 in f32, and no NaN

  OpCase ignored = diagonal("ignored rows", 6, 11, 0.0);
  ignored.inputs[1] = int_input({6}, {3, -100, 10, -100, 0, 3});
  op.cases.push_back(ignored);
  OpCase all_ignored = ignored;
  all_ignored.name = "only ignored rows";
  all_ignored.inputs[1] = int_input({6}, {-100, -100, -100, -100, -100, -100});
  op.cases.push_back(all_ignored);
  OpCase masked = diagonal("masked columns", 2, 4, 0.0);
  masked.inputs[0].values[2] = masked.inputs[0].values[7] = -std::numeric_limits<double>::infinity();
  masked.inputs[0].differentiable = false;  // differences of infinity
  op.cases.push_back(masked);

  op.cases.push_back(soft("soft [0,8]", 0, 8, 1.0));
  op.cases.push_back(soft("soft [1,1]", 1, 1, 1.0));
  op.cases.push_back(soft("soft [3,7]", 3, 7, 1.0));
  op.cases.push_back(soft("soft [9,65]", 9, 65, 3.0));
  op.cases.push_back(soft_one_hot());
  op.cases.back().bf16_tolerance = 0.0;

  OpCase bench = diagonal("InfoNCE logits of 1024 pairs [1024,1024]", 1024, 1024, 5.0);
  bench.inputs[0].differentiable = false;  // differences of so large a reference would take minutes
  bench.bench = true;
  bench.flops = 1024.0 * 1024 * 20;
  bench.bytes = 1024.0 * 1024 * 4;
  op.cases.push_back(bench);
  add_errors(op);
  return op;
}

}  // namespace twinlens::test
