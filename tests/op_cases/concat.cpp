#include "tests/support/op_case.h"

#include "twinlens/core/ops.h"

namespace twinlens::test {
namespace {

Array reference(const std::vector<Array>& in, int dim) {
  Shape shape = in[0].shape;
  shape[dim] = 0;
  for (const Array& x : in) shape[dim] += x.shape[dim];
  Array y(shape);
  std::int64_t inner = 1;
  for (int d = shape.index(dim) + 1; d < shape.rank(); ++d) inner *= shape[d];
  std::int64_t begin = 0;
  for (const Array& x : in) {
    const std::int64_t slab = x.shape[dim] * inner;
    for (std::int64_t i = 0; i < x.shape.count(); ++i) y[i / slab * shape[dim] * inner + begin * inner + i % slab] = x[i];
    begin += x.shape[dim];
  }
  return y;
}

OpCase make(const std::vector<Shape>& shapes, int dim) {
  OpCase c;
  c.cuda = true;
  for (const Shape& shape : shapes) {
    c.inputs.push_back(random_input(shape, std::to_string(c.inputs.size())));
    c.name += to_string(shape);
  }
  c.call = [dim](const std::vector<Tensor>& in) { return concat(in, dim); };
  c.reference = [dim](const std::vector<Array>& in) { return reference(in, dim); };
  c.tolerance = 0.0;
  return c;
}

}  // namespace

OpCases op_cases_concat() {
  OpCases op;
  op.cases.push_back(make({{3, 5}}, 0));
  op.cases.push_back(make({{1}, {4}}, 0));
  op.cases.push_back(make({{3, 1}, {3, 0}, {3, 7}}, -1));
  op.cases.push_back(make({{0, 4}, {0, 4}}, 1));
  op.cases.push_back(make({{2, 1, 33}, {2, 49, 33}}, 1));
  for (const std::int64_t width : {6, 12, 20, 24}) op.cases.push_back(make({{2, 1, width}, {2, 3, width}}, 1));  // runs of other words
  op.cases.push_back(make({{5, 3, 2}, {1, 3, 2}, {4, 3, 2}}, 0));
  OpCase bench = make({{32, 1, 768}, {32, 49, 768}}, 1);               // the class token before the patches of ViT-B/32
  for (CaseInput& input : bench.inputs) input.differentiable = false;  // differences of so large a reference would take minutes
  bench.bench = true;
  bench.bytes = 32.0 * 50 * 768 * 8;
  op.cases.push_back(bench);
  op.errors.push_back({"other sizes differ", [] { concat({zeros({2, 3}), zeros({2, 4})}, 0); }, {"concat", "[2,3]", "[2,4]"}});
  op.errors.push_back({"dtypes differ", [] { concat({zeros({2, 3}), zeros({2, 3}, DType::i64)}, 0); }, {"concat", "f32", "i64"}});
  op.errors.push_back({"no parts", [] { concat({}, 0); }, {"concat", "at least one part"}});
  return op;
}

}  // namespace twinlens::test
