#include <algorithm>
#include <cmath>
#include <numeric>

#include "tests/support/op_case.h"

#include "twinlens/core/ops.h"

namespace twinlens::test {
namespace {

enum class Result { values, indices, argmax };

Array reference(const Array& x, std::int64_t k, Result result) {
  Shape shape = x.shape;
  shape[-1] = k;
  Array y(shape);
  for (std::int64_t r = 0; r < x.rows(); ++r) {
    const auto value = [&](std::int64_t i) { return x[r * x.cols() + i]; };
    std::vector<std::int64_t> order(static_cast<std::size_t>(x.cols()));
    std::iota(order.begin(), order.end(), 0);
    std::stable_sort(order.begin(), order.end(), [&](std::int64_t a, std::int64_t b) {
      return std::isnan(value(a)) || std::isnan(value(b)) ? std::isnan(value(a)) && !std::isnan(value(b)) : value(a) > value(b);
    });
    for (std::int64_t j = 0; j < k; ++j) {
      const std::int64_t at = order[static_cast<std::size_t>(j)];
      y[r * k + j] = result == Result::values ? value(at) : static_cast<double>(at);
    }
  }
  if (result == Result::argmax) y.shape = x.shape.without(-1);
  return y;
}

OpCase make(const Shape& shape, int k, Result result) {
  OpCase c;
  c.cuda = true;
  c.name = to_string(shape) + (result == Result::argmax ? " argmax" : " k = " + std::to_string(k));
  c.inputs = {random_input(shape, to_string(shape))};
  c.call = [k, result](const std::vector<Tensor>& in) {
    if (result == Result::argmax) return argmax(in[0]);
    const TopK top = topk(in[0], k);
    return result == Result::values ? top.values : top.indices;
  };
  c.reference = [k, result](const std::vector<Array>& in) { return reference(in[0], k, result); };
  return c;
}

}  // namespace

OpCases op_cases_topk() {
  OpCases op;
  for (const Result result : {Result::values, Result::indices}) {
    op.cases.push_back(make({1, 1}, 1, result));
    op.cases.push_back(make({0, 8}, 3, result));
    op.cases.push_back(make({3, 8}, 0, result));
    op.cases.push_back(make({9}, 9, result));
    op.cases.push_back(make({2, 3, 65}, 5, result));
    op.cases.push_back(make({3, 1000}, 10, result));
    op.cases.push_back(make({2, 300}, 300, result));
    op.cases.back().bf16_tolerance = 0.0;  // of 300 bf16 numbers some are equal, and there a difference has no derivative
  }
  op.cases.push_back(make({1, 1}, 1, Result::argmax));
  op.cases.push_back(make({7}, 1, Result::argmax));
  op.cases.push_back(make({2, 3, 1000}, 1, Result::argmax));
  for (const Result result : {Result::values, Result::indices, Result::argmax}) {
    const double nan = std::nan(""), inf = std::numeric_limits<double>::infinity();
    OpCase ties = make({3, 6}, result == Result::argmax ? 1 : 4, result);
    ties.name += " ties, NaN and infinities";
    ties.inputs[0].values.v = {2, 1, 2, 2, 0, 1, nan, 3, nan, inf, -inf, inf, -inf, -inf, -inf, -inf, -inf, -inf};
    ties.inputs[0].differentiable = false;
    op.cases.push_back(ties);
  }
  OpCase ids = make({2, 5}, 1, Result::argmax);
  ids.name = "argmax of token ids";
  ids.inputs = {int_input({2, 5}, {49406, 320, 49407, 0, 0, 49406, 49407, 49407, 1, 2})};
  op.cases.push_back(ids);
  OpCase bench = make({1024, 1024}, 10, Result::indices);
  bench.name = "recall@10 of 1024 captions [1024,1024]";
  bench.bench = true;
  bench.bytes = 1024.0 * 1024 * 4;
  op.cases.push_back(bench);

  op.errors.push_back({"k beyond the row", [] { topk(zeros({4, 8}), 9); }, {"topk", "k = 9", "[4,8]"}});
  op.errors.push_back({"no columns", [] { argmax(zeros({4, 0})); }, {"argmax", "[4,0]"}});
  return op;
}

}  // namespace twinlens::test
