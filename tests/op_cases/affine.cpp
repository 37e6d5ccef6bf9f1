#include "tests/support/op_case.h"

#include "twinlens/core/ops.h"

namespace twinlens::test {
namespace {

OpCase make(const Shape& shape, double scale, double shift) {
  OpCase c;
  c.cuda = true;
  c.name = to_string(shape) + " times " + std::to_string(scale) + " plus " + std::to_string(shift);
  c.inputs = {random_input(shape, c.name)};
  c.call = [=](const std::vector<Tensor>& in) { return affine(in[0], scale, shift); };
  c.reference = [=](const std::vector<Array>& in) {
    Array y = in[0];
    for (double& v : y.v) v = scale * v + shift;
    return y;
  };
  c.tolerance = 2e-7;
  return c;
}

}  // namespace

OpCases op_cases_affine() {
  OpCases op;
  for (const Shape& shape : {Shape{}, Shape{0}, Shape{1}, Shape{3, 7}, Shape{2, 5, 33}, Shape{70'001}}) {
    op.cases.push_back(make(shape, -1.75, 0.3));
  }
  op.cases.push_back(make({5, 9}, 1.0, 0.0));
  op.cases.push_back(make({5, 9}, 0.0, 2.5));
  op.errors.push_back({"integers", [] { affine(zeros({4, 8}, DType::i64), 1.0, 0.0); }, {"affine", "i64"}});
  return op;
}

}  // namespace twinlens::test
