// sum, mean, sum_to: the reduced dimensions are brought last and each row is summed.

#include <algorithm>

#include "core/src/ops/dimension.h"

#include "twinlens/core/autograd.h"
#include "twinlens/core/check.h"
#include "twinlens/core/ops.h"
#include "twinlens/kernels/reduce_rows.h"

namespace twinlens {
namespace {

// dx = factor * dy broadcast back over the reduced dimensions.
struct SumNode final : Node {
  Shape kept;   // shape of x with size 1 where reduced
  Shape shape;  // of x
  double factor = 1.0;
  const char* name() const override { return "sum"; }
  void backward(const Tensor& dy, Gradients& grads) override {
    const Tensor spread = dense(dy).reshape(kept);
    grads.add(0, (factor == 1.0 ? spread : affine(spread, factor, 0.0)).expand(shape));
  }
  void release() override {}
};

Tensor sum_over(const char* op, const Tensor& x, std::vector<bool> reduced, bool keep, double factor) {
  check_compute_dtype(op, {{"x", x}});
  std::vector<int> order;
  Shape kept = x.shape(), result;
  std::int64_t columns = 1;
  for (int d = 0; d < x.rank(); ++d) {
    if (!reduced[static_cast<std::size_t>(d)]) {
      order.push_back(d);
      result.push_back(x.size(d));
    }
  }
  for (int d = 0; d < x.rank(); ++d) {
    if (reduced[static_cast<std::size_t>(d)]) {
      order.push_back(d);
      kept[d] = 1;
      columns *= x.size(d);
    }
  }
  Tensor y = empty(result, x.dtype(), x.device());
  {
    const NoGrad guard;
    const Tensor rows = dense(x.permute(order)).reshape({result.count(), columns});
    run(current_stream(x.device()), ReduceRows{const_rows_of(rows), buffer_of(y), static_cast<float>(factor)});
    if (keep) y = y.reshape(kept);
  }
  if (!needs_grad({&x})) return y;
  auto node = std::make_shared<SumNode>();
  node->kept = kept;
  node->shape = x.shape();
  node->factor = factor;
  return record(std::move(y), std::move(node), {&x});
}

std::vector<bool> chosen(const char* op, const Tensor& x, const Reduce& over) {
  std::vector<bool> reduced(static_cast<std::size_t>(x.rank()), over.dims.empty());
  for (const int d : over.dims) {
    const auto i = static_cast<std::size_t>(dimension_of(op, x, d));
    check(!reduced[i], op, "dimension " + std::to_string(i) + " is named twice", {{"x", x}});
    reduced[i] = true;
  }
  return reduced;
}

}  // namespace

Tensor sum(const Tensor& x, const Reduce& over) { return sum_over("sum", x, chosen("sum", x, over), over.keep, 1.0); }

Tensor mean(const Tensor& x, const Reduce& over) {
  const std::vector<bool> reduced = chosen("mean", x, over);
  std::int64_t columns = 1;
  for (int d = 0; d < x.rank(); ++d) columns *= reduced[static_cast<std::size_t>(d)] ? x.size(d) : 1;
  check(columns > 0, "mean", "the mean of no elements is undefined", {{"x", x}});
  return sum_over("mean", x, reduced, over.keep, 1.0 / static_cast<double>(columns));
}

Tensor sum_to(const Tensor& x, const Shape& shape) {
  if (x.shape() == shape) return x;
  check(broadcast_shape("sum_to", shape, x.shape()) == x.shape(), "sum_to", "x is not a broadcast of " + to_string(shape), {{"x", x}});
  std::vector<bool> reduced(static_cast<std::size_t>(x.rank()), false);
  const int extra = x.rank() - shape.rank();
  for (int d = 0; d < x.rank(); ++d) reduced[static_cast<std::size_t>(d)] = d < extra || (shape[d - extra] == 1 && x.size(d) != 1);
  return sum_over("sum_to", x, reduced, true, 1.0).reshape(shape);
}

}  // namespace twinlens
