#include <cmath>

#include "tests/support/op_case.h"

#include "twinlens/core/ops.h"

namespace twinlens::test {
namespace {

struct Function {
  const char* name;
  Tensor (*call)(const Tensor&, const Tensor&);
  double (*reference)(double, double);
};

const Function kFunctions[] = {
    {"add", add, [](double a, double b) { return a + b; }},
    {"sub", sub, [](double a, double b) { return a - b; }},
    {"mul", mul, [](double a, double b) { return a * b; }},
    {"div", div, [](double a, double b) { return a / b; }},
    {"maximum", maximum, [](double a, double b) { return std::max(a, b); }},
    {"minimum", minimum, [](double a, double b) { return std::min(a, b); }},
};

// x as broadcasting gives it `shape`. Leading dimensions that x lacks, or that are 1, repeat what lies behind them.
Array broadcast(const Array& x, const Shape& shape) {
  Array y = x;
  std::int64_t inner = 1;  // elements of y behind dimension -d
  for (int d = 1; d <= shape.rank(); inner *= shape[-d], ++d) {
    const std::int64_t has = d <= x.shape.rank() ? x.shape[-d] : 1;
    if (has == shape[-d]) continue;
    std::vector<double> repeated;
    for (auto at = y.v.begin(); at != y.v.end(); at += inner) {
      for (std::int64_t i = 0; i < shape[-d]; ++i) repeated.insert(repeated.end(), at, at + inner);
    }
    y.v = std::move(repeated);
  }
  y.shape = shape;
  return y;
}

OpCase make(const Function& f, const Shape& a, const Shape& b) {
  OpCase c;
  c.cuda = true;
  c.name = std::string(f.name) + " " + to_string(a) + " " + to_string(b);
  c.inputs = {random_input(a, c.name + "a"), random_input(b, c.name + "b")};
  for (double& x : c.inputs[1].values.v) x += x < 0 ? -0.5 : 0.5;  // away from 0: divisors
  c.call = [call = f.call](const std::vector<Tensor>& in) { return call(in[0], in[1]); };
  c.reference = [reference = f.reference](const std::vector<Array>& in) {
    Array y(broadcast_shape("reference", in[0].shape, in[1].shape));
    const Array left = broadcast(in[0], y.shape), right = broadcast(in[1], y.shape);
    for (std::int64_t i = 0; i < y.shape.count(); ++i) y[i] = reference(left[i], right[i]);
    return y;
  };
  return c;
}

}  // namespace

OpCases op_cases_binary() {
  OpCases op;
  for (const Function& f : kFunctions) {
    op.cases.push_back(make(f, {}, {}));
    op.cases.push_back(make(f, {0, 4}, {4}));
    op.cases.push_back(make(f, {5, 65}, {5, 65}));
    op.cases.push_back(make(f, {33, 7}, {7}));
    op.cases.push_back(make(f, {7}, {33, 7}));
    op.cases.push_back(make(f, {3, 517}, {}));
    op.cases.push_back(make(f, {1, 1}, {3, 5}));
    op.cases.push_back(make(f, {9, 1}, {1, 6}));
    op.cases.push_back(make(f, {2, 50, 96}, {1, 50, 96}));
    op.cases.push_back(make(f, {2, 1, 3, 1, 5, 4}, {7, 1, 2, 5, 1}));
  }
  OpCase bench = make(kFunctions[0], {1600, 768}, {1600, 768});
  bench.name = "add, residual of ViT-B/32, batch 32 [1600,768]";
  bench.bench = true;
  bench.flops = 1600.0 * 768;
  bench.bytes = 1600.0 * 768 * 12;
  op.cases.push_back(bench);
  bench = make(kFunctions[0], {32, 50, 768}, {50, 768});
  bench.name = "add, positions of ViT-B/32, batch 32 [32,50,768] [50,768]";
  bench.bench = true;
  bench.flops = 1600.0 * 768;
  bench.bytes = 1600.0 * 768 * 8;
  op.cases.push_back(bench);

  op.errors.push_back({"shapes", [] { add(zeros({4, 8}), zeros({7})); }, {"add", "do not broadcast", "[4,8]", "[7]"}});
  op.errors.push_back({"dtypes", [] { mul(zeros({4, 8}), zeros({4, 8}, DType::bf16)); }, {"mul", "one dtype", "[4,8] f32", "[4,8] bf16"}});
  op.errors.push_back({"integers", [] { div(zeros({4}, DType::i64), zeros({4}, DType::i64)); }, {"div", "must be f32 or bf16", "i64"}});
  op.errors.push_back({"compare shapes", [] { less(zeros({4, 8}), zeros({7})); }, {"less", "do not broadcast", "[4,8]", "[7]"}});
  op.errors.push_back({"compare dtypes", [] { equal(zeros({4}), zeros({4}, DType::i64)); }, {"equal", "one dtype", "[4] f32", "[4] i64"}});
  return op;
}

}  // namespace twinlens::test
