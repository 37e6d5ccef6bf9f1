#include <cmath>
#include <limits>

#include "tests/support/op_case.h"

#include "twinlens/core/ops.h"

namespace twinlens::test {
namespace {

OpCase make(const Shape& shape, double scale = 1.0) {
  OpCase c;
  c.cuda = true;
  c.name = to_string(shape) + (scale != 1.0 ? " scaled" : "");
  c.inputs = {random_input(shape, c.name, scale)};
  c.call = [](const std::vector<Tensor>& in) { return norm2(in[0]); };
  c.reference = [](const std::vector<Array>& in) {
    double sum = 0.0;
    for (const double v : in[0].v) sum += v * v;
    return Array({}, std::sqrt(sum));
  };
  c.tolerance = c.bf16_tolerance = 6e-8;  // summed in double, rounded once
  return c;
}

OpCase nonfinite(const Shape& shape, const std::vector<std::int64_t>& infinite, const std::vector<std::int64_t>& nan) {
  OpCase c = make(shape);
  c.name = "count_nonfinite " + c.name;
  for (const std::int64_t i : infinite) c.inputs[0].values[i] = (i % 2 == 0 ? 1.0 : -1.0) * std::numeric_limits<double>::infinity();
  for (const std::int64_t i : nan) c.inputs[0].values[i] = std::nan("");
  c.call = [](const std::vector<Tensor>& in) { return count_nonfinite(in[0]); };
  c.reference = [](const std::vector<Array>& in) {
    Array y(Shape{});
    for (const double v : in[0].v) y[0] += std::isfinite(v) ? 0.0 : 1.0;
    return y;
  };
  return c;
}

}  // namespace

OpCases op_cases_norm2() {
  OpCases op;
  for (const Shape& shape : {Shape{}, Shape{0}, Shape{1}, Shape{3, 7}, Shape{3, 70001}}) op.cases.push_back(make(shape));
  op.cases.push_back(make({67}, 1e25));  // squares overflow f32
  op.cases.push_back(make({67}, 1e-30));
  op.cases.back().absolute = 0.0;
  op.cases.push_back(nonfinite({3, 7}, {}, {}));
  op.cases.push_back(nonfinite({0}, {}, {}));
  op.cases.push_back(nonfinite({3, 7}, {0, 1, 20}, {5}));
  op.cases.push_back(nonfinite({200'001}, {200'000, 65'536}, {65'535, 131'072, 3}));
  op.errors.push_back({"integers", [] { norm2(zeros({4}, DType::i64)); }, {"norm2", "i64"}});
  op.errors.push_back({"integers", [] { count_nonfinite(zeros({4}, DType::i64)); }, {"count_nonfinite", "i64"}});
  return op;
}

}  // namespace twinlens::test
