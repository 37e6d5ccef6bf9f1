#include <cmath>
#include <limits>

#include "tests/support/op_case.h"

#include "twinlens/core/ops.h"

namespace twinlens::test {
namespace {

Array reference(const Array& x, int dim, bool keep, bool indices) {
  const int d = dim < 0 ? dim + x.shape.rank() : dim;
  Shape shape;
  std::int64_t inner = 1;
  for (int i = 0; i < x.shape.rank(); ++i) {
    if (i > d) inner *= x.shape[i];
    if (i != d) shape.push_back(x.shape[i]);
    if (i == d && keep) shape.push_back(1);
  }
  Array y(shape);
  for (std::int64_t k = 0; k < shape.count(); ++k) {
    const auto value = [&](std::int64_t i) { return x[(k / inner * x.shape[d] + i) * inner + k % inner]; };
    std::int64_t best = 0;
    for (std::int64_t i = 1; i < x.shape[d]; ++i) {
      if (value(i) > value(best) || (std::isnan(value(i)) && !std::isnan(value(best)))) best = i;
    }
    y[k] = indices ? static_cast<double>(best) : value(best);
  }
  return y;
}

OpCase make(const Shape& shape, int dim, bool keep, bool indices) {
  OpCase c;
  c.cuda = true;
  c.name = to_string(shape) + " over " + std::to_string(dim) + (keep ? " kept" : "") + (indices ? " indices" : "");
  c.inputs = {random_input(shape, to_string(shape))};
  c.call = [=](const std::vector<Tensor>& in) {
    const Max m = max(in[0], dim, keep);
    return indices ? m.indices : m.values;
  };
  c.reference = [=](const std::vector<Array>& in) { return reference(in[0], dim, keep, indices); };
  c.tolerance = 0.0;
  return c;
}

// The op's subgradient: all of it to the first of equals.
OpCase ties() {
  OpCase c = make({5, 3}, 0, false, false);
  c.name = "gradient of equals";
  for (std::int64_t i = 0; i < 15; ++i) c.inputs[0].values[i] = i < 6 ? -1.0 : 2.0;
  c.reference = [](const std::vector<Array>& in) {
    Array y({3});
    for (std::int64_t i = 0; i < 3; ++i) y[i] = in[0][6 + i];
    return y;
  };
  return c;
}

}  // namespace

OpCases op_cases_max() {
  OpCases op;
  for (const bool indices : {false, true}) {
    op.cases.push_back(make({1}, 0, false, indices));
    op.cases.push_back(make({0, 5}, 1, false, indices));
    op.cases.push_back(make({9, 7}, 0, true, indices));
    op.cases.push_back(make({9, 7}, -1, false, indices));
    op.cases.push_back(make({3, 17, 2, 5}, 1, false, indices));
    op.cases.push_back(make({2, 3, 65}, 2, true, indices));
    OpCase special = make({4, 3}, 0, false, indices);
    special.name += " ties, NaN and infinities";
    constexpr double inf = std::numeric_limits<double>::infinity();
    special.inputs[0].values.v = {2, -inf, 1, 2, -inf, std::nan(""), 1, -inf, inf, 2, -inf, std::nan("")};
    special.inputs[0].differentiable = false;
    op.cases.push_back(special);
  }
  op.cases.push_back(ties());
  op.errors.push_back({"empty dimension", [] { max(zeros({3, 0}), 1); }, {"max", "dimension 1 is empty", "[3,0]"}});
  op.errors.push_back({"integers", [] { max(zeros({3}, DType::i64), 0); }, {"max", "i64"}});
  op.errors.push_back({"scalar", [] { max(scalar(1.0F), 0); }, {"max", "at least one dimension"}});
  return op;
}

}  // namespace twinlens::test
