// embedding, index_select, scatter_add: slices by index. Gradients add in the order of the indices, so repeated ones give the same bits
// for any thread count.

#include "core/src/ops/dimension.h"
#include "core/src/ops/elements.h"

#include "twinlens/core/autograd.h"
#include "twinlens/core/check.h"
#include "twinlens/core/ops.h"
#include "twinlens/kernels/index_select.h"

namespace twinlens {
namespace {

// x as (outer, size, inner) around dimension `dim`.
struct Around {
  std::int64_t outer = 1, size = 1, inner = 1;
  Around(const Shape& shape, int dim) : size(shape[dim]) {
    for (int d = 0; d < dim; ++d) outer *= shape[d];
    for (int d = dim + 1; d < shape.rank(); ++d) inner *= shape[d];
  }
};

// y[..., i, ...] = x[..., ids[i], ...]; y has the indexed dimension replaced by `count` slices.
void gather(const Tensor& x, int dim, const Tensor& ids, const Tensor& y) {
  const Around a(x.shape(), dim);
  run(current_stream(x.device()), IndexSelect{const_buffer_of(x), ints(ids), buffer_of(y), a.outer, a.size, ids.count(), a.inner});
}

// y[..., ids[i], ...] += x[..., i, ...]; y dense f32 of shape `shape`.
void add_slices(const Tensor& x, const Tensor& ids, const Tensor& y, const Shape& shape, int dim) {
  const Around a(shape, dim);
  const Tensor source = dense(x);
  ScatterAdd args{const_buffer_of(source), ints(ids), floats(y), a.outer, a.size, ids.count(), a.inner};
  Tensor scratch;
  if (y.device().is_cuda()) {
    const std::int64_t words = scatter_plan(a.outer, a.size, ids.count(), a.inner).words;
    if (words > 0) args.scratch = static_cast<std::uint32_t*>((scratch = empty({words}, DType::i32, y.device())).raw());
  }
  run(current_stream(y.device()), args);
}

struct IndexSelectNode final : Node {
  const char* op = "";
  Saved ids;
  Shape shape;  // of x
  int dim = 0;

  const char* name() const override { return op; }

  void backward(const Tensor& dy, Gradients& grads) override {
    // A flat parameter block takes the sum in place: a table of 49408 rows is not cleared and added as a whole for a few thousand tokens.
    if (const Tensor block = grads.accumulator(0); block.defined()) {
      add_slices(dy, ids.get(), block, shape, dim);
      grads.done(0);
      return;
    }
    Tensor dx = zeros(shape, DType::f32, dy.device());
    add_slices(dy, ids.get(), dx, shape, dim);
    grads.add(0, std::move(dx));
  }

  void release() override { ids.reset(); }
};

Tensor select_slices(const char* op, const Tensor& x, int dim, const Tensor& indices, const Shape& result) {
  const Tensor source = dense(x), ids = dense(indices);
  Tensor y = empty(result, x.dtype(), x.device());
  gather(source, dim, ids, y);
  if (!is_float(x.dtype()) || !needs_grad({&x})) return y;
  auto node = std::make_shared<IndexSelectNode>();
  node->op = op;
  node->ids = Saved("indices", ids);
  node->shape = x.shape();
  node->dim = dim;
  return record(std::move(y), std::move(node), {&x});
}

struct ScatterAddNode final : Node {
  Saved ids;
  Shape source_shape;

  const char* name() const override { return "scatter_add"; }

  void backward(const Tensor& dy_in, Gradients& grads) override {
    if (grads.wants(1)) {
      const Tensor dy = dense(dy_in);
      Tensor dsource = empty(source_shape, dy.dtype(), dy.device());
      gather(dy, 0, ids.get(), dsource);
      grads.add(1, std::move(dsource));
    }
    grads.add(0, dy_in);
  }

  void release() override { ids.reset(); }
};

}  // namespace

Tensor embedding(const Tensor& table, const Tensor& ids) {
  check_same_device("embedding", {{"table", table}, {"ids", ids}});
  check(table.rank() == 2, "embedding", "table must be (V, C)", {{"table", table}, {"ids", ids}});
  check_dtype(is_float(table.dtype()), "embedding", "table must be floating", {{"table", table}});
  check_indices("embedding", {"ids", ids}, table.size(0));
  Shape result = ids.shape();
  result.push_back(table.size(1));
  return select_slices("embedding", table, 0, ids, result);
}

Tensor index_select(const Tensor& x, int dim, const Tensor& indices) {
  check_same_device("index_select", {{"x", x}, {"indices", indices}});
  const int d = dimension_of("index_select", x, dim);
  check(indices.rank() == 1, "index_select", "indices must have one dimension", {{"x", x}, {"indices", indices}});
  check_indices("index_select", {"indices", indices}, x.size(d));
  Shape result = x.shape();
  result[d] = indices.count();
  return select_slices("index_select", x, d, indices, result);
}

Tensor scatter_add(const Tensor& x, const Tensor& indices, const Tensor& source) {
  check_same_device("scatter_add", {{"x", x}, {"indices", indices}, {"source", source}});
  check_compute_dtype("scatter_add", {{"x", x}, {"source", source}});
  check_dtype(x.dtype() == source.dtype(), "scatter_add", "x and source must have one dtype", {{"x", x}, {"source", source}});
  bool fits = x.rank() >= 1 && x.rank() == source.rank() && indices.shape() == Shape{source.size(0)};
  for (int d = 1; fits && d < x.rank(); ++d) fits = x.size(d) == source.size(d);
  check(fits, "scatter_add", "needs one index per slice of source, and slices of the shape of those of x",
        {{"x", x}, {"indices", indices}, {"source", source}});
  check_indices("scatter_add", {"indices", indices}, x.size(0));

  const Tensor ids = dense(indices);
  Tensor y = empty(x.shape(), DType::f32, x.device());
  {
    const NoGrad guard;
    y.copy_(x);
    add_slices(source, ids, y, x.shape(), 0);
    y = y.to(x.dtype());
  }
  if (!needs_grad({&x, &source})) return y;
  auto node = std::make_shared<ScatterAddNode>();
  node->ids = Saved("indices", ids);
  node->source_shape = source.shape();
  return record(std::move(y), std::move(node), {&x, &source});
}

}  // namespace twinlens
