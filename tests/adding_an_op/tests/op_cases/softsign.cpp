#include "twinlens/core/softsign.h"

#include <cmath>

#include "tests/support/op_case.h"

namespace twinlens::test {
namespace {

Array reference(const std::vector<Array>& in) {
  Array y = in[0];
  for (double& v : y.v) v = v / (1.0 + std::abs(v));
  return y;
}

OpCase make(const Shape& shape, double scale = 1.0) {
  OpCase c;
  c.name = to_string(shape);
  c.inputs = {random_input(shape, c.name, scale)};
  c.call = [](const std::vector<Tensor>& in) { return softsign(in[0]); };
  c.reference = reference;
  c.tolerance = 2e-7;
  c.gradient_tolerance = 1e-6;  // of the central differences as well
  c.cuda = true;
  return c;
}

}  // namespace

OpCases op_cases_softsign() {
  OpCases op;
  for (const Shape& shape : {Shape{}, Shape{0}, Shape{1}, Shape{3, 7}, Shape{2, 5, 33}}) op.cases.push_back(make(shape));
  op.cases.push_back(make({64}, 1e6));  // far out on both branches
  OpCase bench = make({1600, 768});
  bench.name = "ViT-B/32 image rows, batch 32 [1600,768]";
  bench.bench = true;
  bench.flops = 1600.0 * 768 * 3;
  bench.bytes = 1600.0 * 768 * 8;
  op.cases.push_back(bench);
  op.errors.push_back({"integers", [] { softsign(zeros({4, 8}, DType::i64)); }, {"softsign", "[4,8]", "i64"}});
  return op;
}

}  // namespace twinlens::test
