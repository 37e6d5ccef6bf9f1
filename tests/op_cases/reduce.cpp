#include "tests/support/op_case.h"

#include "twinlens/core/ops.h"

namespace twinlens::test {
namespace {

// Sum over the dimensions where `reduced`, which keep size 1.
Array kept_sum(const Array& x, const std::vector<bool>& reduced) {
  Shape shape = x.shape;
  for (int d = 0; d < shape.rank(); ++d) shape[d] = reduced[static_cast<std::size_t>(d)] ? 1 : shape[d];
  Array y(shape);
  for (std::int64_t i = 0; i < x.shape.count(); ++i) {
    std::int64_t rest = i, at = 0, step = 1;
    for (int d = shape.rank() - 1; d >= 0; --d) {
      at += reduced[static_cast<std::size_t>(d)] ? 0 : rest % x.shape[d] * step;
      step *= shape[d];
      rest /= x.shape[d];
    }
    y[at] += x[i];
  }
  return y;
}

std::vector<bool> chosen(const Shape& shape, const std::vector<int>& dims) {
  std::vector<bool> reduced(static_cast<std::size_t>(shape.rank()), dims.empty());
  for (const int d : dims) reduced[static_cast<std::size_t>(d < 0 ? d + shape.rank() : d)] = true;
  return reduced;
}

OpCase make(const Shape& shape, const std::vector<int>& dims, bool keep, bool is_mean) {
  OpCase c;
  c.cuda = true;
  c.name = std::string(is_mean ? "mean " : "sum ") + to_string(shape) + " over";
  for (const int d : dims) c.name.append(" ").append(std::to_string(d));
  c.inputs = {random_input(shape, c.name, 1.0, 0.5)};
  const Reduce over{dims, keep};
  c.call = [=](const std::vector<Tensor>& in) { return is_mean ? mean(in[0], over) : sum(in[0], over); };
  c.reference = [=](const std::vector<Array>& in) {
    const std::vector<bool> reduced = chosen(in[0].shape, dims);
    Array y = kept_sum(in[0], reduced);
    if (is_mean) {
      for (double& v : y.v) v *= static_cast<double>(y.shape.count()) / static_cast<double>(in[0].shape.count());
    }
    if (keep) return y;
    Shape left;
    for (int d = 0; d < shape.rank(); ++d) {
      if (!reduced[static_cast<std::size_t>(d)]) left.push_back(shape[d]);
    }
    y.shape = left;
    return y;
  };
  return c;
}

OpCase to(const Shape& shape, const Shape& target, const std::vector<int>& dims) {
  OpCase c = make(shape, dims, true, false);
  c.name = "sum_to " + to_string(shape) + " to " + to_string(target);
  c.call = [target](const std::vector<Tensor>& in) { return sum_to(in[0], target); };
  c.reference = [target, dims](const std::vector<Array>& in) {
    Array y = dims.empty() ? in[0] : kept_sum(in[0], chosen(in[0].shape, dims));
    y.shape = target;
    return y;
  };
  return c;
}

}  // namespace

OpCases op_cases_reduce() {
  OpCases op;
  for (const bool is_mean : {false, true}) {
    op.cases.push_back(make({}, {}, false, is_mean));
    op.cases.push_back(make({1}, {0}, true, is_mean));
    op.cases.push_back(make({0, 5}, {1}, false, is_mean));
    op.cases.push_back(make({3, 7}, {}, false, is_mean));
    op.cases.push_back(make({3, 7}, {0}, false, is_mean));
    op.cases.push_back(make({2, 5, 67}, {-1}, true, is_mean));
    op.cases.push_back(make({2, 5, 3, 17}, {0, 2}, true, is_mean));
    op.cases.push_back(make({2, 5, 3, 17}, {1, -1}, false, is_mean));
    op.cases.push_back(make({3, 4097}, {1}, false, is_mean));   // a column more than a block
    op.cases.push_back(make({300, 130}, {1}, false, is_mean));  // shared by the threads
  }
  op.cases.push_back(make({3, 0}, {1}, false, false));  // an empty sum is 0
  op.cases.push_back(make({1'000'003}, {}, false, false));
  op.cases.back().inputs[0].differentiable = false;
  op.cases.push_back(to({2, 3, 5}, {5}, {0, 1}));
  op.cases.push_back(to({2, 3, 5}, {2, 1, 5}, {1}));
  op.cases.push_back(to({2, 3, 5}, {}, {0, 1, 2}));
  op.cases.push_back(to({2, 3}, {2, 3}, {}));
  OpCase bench = make({32, 50, 768}, {1}, false, true);
  bench.name = "mean of ViT-B/32 tokens, batch 32 [32,50,768]";
  bench.inputs[0].differentiable = false;
  bench.bench = true;
  bench.bytes = 32.0 * 50 * 768 * 4;
  op.cases.push_back(bench);

  op.errors.push_back({"mean of nothing", [] { mean(zeros({3, 0}), {{1}}); }, {"mean", "no elements", "[3,0]"}});
  op.errors.push_back({"integers", [] { sum(zeros({3}, DType::i64)); }, {"sum", "i64"}});
  op.errors.push_back({"integers", [] { mean(zeros({3}, DType::i64)); }, {"mean", "i64"}});
  op.errors.push_back({"a dimension twice", [] { sum(zeros({2, 3}), {{1, -1}}); }, {"sum", "dimension 1 is named twice", "[2,3]"}});
  op.errors.push_back({"not a broadcast", [] { sum_to(zeros({2, 3}), {2}); }, {"sum_to", "[2]"}});
  return op;
}

}  // namespace twinlens::test
