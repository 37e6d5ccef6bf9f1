#include "tests/support/op_case.h"

#include "twinlens/core/ops.h"

namespace twinlens::test {
namespace {

CaseInput random_mask(const Shape& shape) {
  const CaseInput numbers = random_input(shape, "mask");
  std::vector<std::int64_t> bits;
  for (const double x : numbers.values.v) bits.push_back(x > 0.2);
  return bool_input(shape, bits);
}

// mask, a and b of equal shape; broadcasting is the view that tests/op_cases/binary.cpp exercises.
OpCase make_where(const Shape& shape) {
  OpCase c;
  c.cuda = true;
  c.name = "where " + to_string(shape);
  c.inputs = {random_mask(shape), random_input(shape, "a"), random_input(shape, "b")};
  c.call = [](const std::vector<Tensor>& in) { return where(in[0], in[1], in[2]); };
  c.reference = [](const std::vector<Array>& in) {
    Array y(in[0].shape);
    for (std::int64_t i = 0; i < y.shape.count(); ++i) y[i] = in[0][i] != 0.0 ? in[1][i] : in[2][i];
    return y;
  };
  return c;
}

OpCase make_masked_fill(const Shape& rows, const Shape& columns) {
  OpCase c;
  c.cuda = true;
  c.name = "masked_fill " + to_string(rows) + " " + to_string(columns);
  c.inputs = {random_input(rows, "x"), random_mask(columns)};
  c.call = [](const std::vector<Tensor>& in) { return masked_fill(in[0], in[1], -7.5); };
  c.reference = [](const std::vector<Array>& in) {
    Array y(in[0].shape);
    const std::int64_t period = in[1].shape.count();
    for (std::int64_t i = 0; i < y.shape.count(); ++i) y[i] = in[1][i % period] != 0.0 ? -7.5 : in[0][i];
    return y;
  };
  return c;
}

OpCase make_broadcast_where() {
  OpCase c = make_where({6, 1});
  c.name = "where [6,1] [5] []";
  c.inputs = {random_mask({6, 1}), random_input({5}, "a"), random_input({}, "b")};
  c.reference = [](const std::vector<Array>& in) {
    Array y(Shape{6, 5});
    for (std::int64_t i = 0; i < 30; ++i) y[i] = in[0][i / 5] != 0.0 ? in[1][i % 5] : in[2][0];
    return y;
  };
  return c;
}

}  // namespace

OpCases op_cases_where() {
  OpCases op;
  for (const Shape& shape : {Shape{}, Shape{0, 4}, Shape{5, 65}, Shape{3, 7, 77}}) op.cases.push_back(make_where(shape));
  op.cases.push_back(make_broadcast_where());
  op.cases.push_back(make_masked_fill({4, 9, 9}, {9, 9}));
  op.cases.push_back(make_masked_fill({33, 65}, {33, 65}));
  OpCase bench = make_masked_fill({256, 77, 77}, {77, 77});
  bench.name = "causal mask of 256 heads [256,77,77] [77,77]";
  bench.bench = true;
  bench.flops = 256.0 * 77 * 77;
  bench.bytes = 256.0 * 77 * 77 * 8;
  op.cases.push_back(bench);

  op.errors.push_back({"shapes", [] { where(zeros({4, 8}, DType::boolean), zeros({7}), zeros({8})); }, {"where", "[7]", "[8]"}});
  op.errors.push_back({"mask dtype", [] { where(zeros({4}), zeros({4}), zeros({4})); }, {"where", "mask must be bool", "[4] f32"}});
  op.errors.push_back({"larger mask",
                       [] {
                         masked_fill(zeros({4}), zeros({3, 4}, DType::boolean), 0.0);
                       },
                       {"masked_fill", "mask must broadcast", "[4]", "[3,4]"}});
  return op;
}

}  // namespace twinlens::test
