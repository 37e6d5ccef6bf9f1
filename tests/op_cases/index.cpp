#include "tests/support/op_case.h"

#include "twinlens/core/ops.h"

namespace twinlens::test {
namespace {

std::vector<std::int64_t> some_indices(std::int64_t n, std::int64_t limit) {
  std::vector<std::int64_t> ids;
  for (std::int64_t i = 0; i < n; ++i) ids.push_back((i * i * 7 + 3 * i) % limit);  // with repetitions
  return ids;
}

OpCase embedding_case(std::int64_t vocabulary, std::int64_t width, const Shape& ids) {
  OpCase c;
  c.cuda = true;
  c.name = "embedding [" + std::to_string(vocabulary) + "," + std::to_string(width) + "] " + to_string(ids);
  c.inputs = {random_input({vocabulary, width}, c.name), int_input(ids, some_indices(ids.count(), vocabulary))};
  c.call = [](const std::vector<Tensor>& in) { return embedding(in[0], in[1]); };
  c.reference = [width](const std::vector<Array>& in) {
    Shape shape = in[1].shape;
    shape.push_back(width);
    Array y(shape);
    for (std::int64_t i = 0; i < shape.count(); ++i) y[i] = in[0][static_cast<std::int64_t>(in[1][i / width]) * width + i % width];
    return y;
  };
  return c;
}

OpCase select_case(const Shape& shape, int dim, std::int64_t n) {
  OpCase c;
  c.cuda = true;
  c.name = "index_select " + to_string(shape) + " dim " + std::to_string(dim);
  c.inputs = {random_input(shape, c.name), int_input({n}, some_indices(n, shape[dim]))};
  c.call = [dim](const std::vector<Tensor>& in) { return index_select(in[0], dim, in[1]); };
  c.reference = [dim](const std::vector<Array>& in) {
    Shape shape_y = in[0].shape;
    const std::int64_t size = shape_y[dim];
    const std::int64_t count = shape_y[dim] = in[1].shape[0];
    std::int64_t inner = 1;
    for (int d = shape_y.index(dim) + 1; d < shape_y.rank(); ++d) inner *= shape_y[d];
    Array y(shape_y);
    for (std::int64_t k = 0; k < shape_y.count(); ++k) {
      const std::int64_t outer = k / inner / count, i = k / inner % count;
      y[k] = in[0][(outer * size + static_cast<std::int64_t>(in[1][i])) * inner + k % inner];
    }
    return y;
  };
  return c;
}

OpCase scatter_case(std::int64_t rows, std::int64_t n, std::int64_t width) {
  OpCase c;
  c.cuda = true;
  c.name = "scatter_add [" + std::to_string(rows) + "," + std::to_string(width) + "] of " + std::to_string(n);
  c.inputs = {random_input({rows, width}, c.name), int_input({n}, some_indices(n, rows)), random_input({n, width}, "source")};
  c.call = [](const std::vector<Tensor>& in) { return scatter_add(in[0], in[1], in[2]); };
  c.reference = [width](const std::vector<Array>& in) {
    Array y = in[0];
    for (std::int64_t i = 0; i < in[2].shape.count(); ++i) y[static_cast<std::int64_t>(in[1][i / width]) * width + i % width] += in[2][i];
    return y;
  };
  return c;
}

void add_errors(OpCases& op) {
  const auto ids = [](std::vector<std::int64_t> v) { return from_vector(v, {static_cast<std::int64_t>(v.size())}); };
  op.errors.push_back({"token beyond the table",
                       [=] {
                         embedding(zeros({5, 8}), ids({0, 4, 5}));
                       },
                       {"embedding", "index 5 at position 2", "[0, 5)"}});
  op.errors.push_back({"negative token", [=] { embedding(zeros({5, 8}), ids({-1})); }, {"embedding", "index -1 at position 0"}});
  op.errors.push_back({"float tokens", [] { embedding(zeros({5, 8}), zeros({3})); }, {"embedding", "ids must be i64"}});
  op.errors.push_back({"table of one dimension", [=] { embedding(zeros({5}), ids({0, 1})); }, {"embedding", "[5]", "[2]"}});
  op.errors.push_back({"index out of range", [=] { index_select(zeros({2, 3}), 1, ids({3})); }, {"index_select", "index 3", "[0, 3)"}});
  op.errors.push_back({"indices of two dimensions",
                       [] {
                         index_select(zeros({2, 3}), 1, zeros({1, 1}, DType::i64));
                       },
                       {"index_select", "[2,3]", "[1,1]"}});
  op.errors.push_back({"slices of another shape",
                       [=] {
                         scatter_add(zeros({4, 3}), ids({1, 2}), zeros({2, 5}));
                       },
                       {"scatter_add", "[4,3]", "[2,5]"}});
}

}  // namespace

OpCases op_cases_index() {
  OpCases op;
  op.cases.push_back(embedding_case(1, 1, {1}));
  op.cases.push_back(embedding_case(5, 8, {0}));
  op.cases.push_back(embedding_case(11, 7, {2, 3}));
  op.cases.push_back(embedding_case(97, 130, {61}));
  op.cases.push_back(select_case({6}, 0, 4));
  op.cases.push_back(select_case({3, 4}, 0, 0));
  op.cases.push_back(select_case({0, 4}, 1, 3));
  op.cases.push_back(select_case({3, 5}, -1, 7));
  op.cases.push_back(select_case({2, 7, 33}, 1, 5));
  op.cases.push_back(scatter_case(1, 1, 1));
  op.cases.push_back(scatter_case(4, 0, 3));
  op.cases.push_back(scatter_case(5, 23, 65));
  // Many indices take another path on a card: several tiles and pieces, long runs of equal ones, ids of one digit and of two.
  op.cases.push_back(embedding_case(3, 4, {65}));
  op.cases.push_back(embedding_case(7, 12, {1500}));
  op.cases.push_back(embedding_case(300, 5, {2, 2100}));
  op.cases.push_back(select_case({5, 70, 9}, 1, 401));
  op.cases.push_back(scatter_case(600, 5000, 3));
  op.cases.push_back(scatter_case(2, 1025, 8));
  OpCase bench = embedding_case(8192, 512, {256, 16});  // captions use a few thousand of the 49408 tokens
  bench.inputs[0].differentiable = false;               // differences of so large a reference would take minutes
  bench.bench = true;
  bench.bytes = 256.0 * 16 * 512 * 8;
  op.cases.push_back(bench);
  add_errors(op);
  return op;
}

}  // namespace twinlens::test
