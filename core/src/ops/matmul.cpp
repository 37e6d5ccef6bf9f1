#include "core/src/ops/product.h"

#include "twinlens/core/autograd.h"
#include "twinlens/core/check.h"
#include "twinlens/core/ops.h"

namespace twinlens {
namespace {

std::int64_t batch_of(const Tensor& x) {
  std::int64_t items = 1;
  for (int d = 0; d < x.rank() - 2; ++d) items *= x.size(d);
  return items;
}

// c = alpha a b for `batch` items; a and b stand in the roles that the product gives them.
Matmul product(const MatmulOperand& a, const MatmulOperand& b, std::int64_t depth, double alpha, Compute compute) {
  Matmul m;
  m.a = a;
  m.b = b;
  m.depth = depth;
  m.alpha = static_cast<float>(alpha);
  m.compute = compute;
  return m;
}

void set_result(Matmul& m, const Tensor& c, std::int64_t batch) {
  m.c = {c.raw(), c.dtype(), c.size(-2), c.size(-1), c.size(-1), nullptr};
  m.batch = batch;
  m.c_batch_stride = c.size(-2) * c.size(-1);
}

// The sum over the batch of products: the gradient of an operand that the whole batch shares. c is f32.
void sum_of_products(Matmul m, const Tensor& c, std::int64_t batch, bool accumulate) {
  set_result(m, c, 1);
  for (std::int64_t i = 0; i < batch; ++i) {
    m.accumulate = accumulate || i > 0;
    run_product(c.device(), m);
    m.a.data = static_cast<const char*>(m.a.data) + m.a.batch_stride * size_of(m.a.dtype);
    m.b.data = static_cast<const char*>(m.b.data) + m.b.batch_stride * size_of(m.b.dtype);
  }
}

struct MatmulNode final : Node {
  Saved a, b;
  MatmulOptions options;
  Compute compute = Compute::fp32;
  const char* name() const override { return "matmul"; }

  void backward(const Tensor& dy_in, Gradients& grads) override {
    const Tensor dy = dense(dy_in);
    const Operand dc(dy), x(a.get(), options.transpose_a), y(b.get(), options.transpose_b);
    const std::int64_t rows = dy.size(-2), cols = dy.size(-1);
    // With A = op(a) and B = op(b): dA = alpha dC B^T and dB = alpha A^T dC; of a transposed operand the transpose is wanted.
    if (grads.wants(0)) {
      give(grads, 0, a.get(), batch_of(dy),
           options.transpose_a ? product(y.matrix, dc.flipped(), cols, options.alpha, compute)
                               : product(dc.matrix, y.flipped(), cols, options.alpha, compute));
    }
    if (grads.wants(1)) {
      give(grads, 1, b.get(), batch_of(dy),
           options.transpose_b ? product(dc.flipped(), x.matrix, rows, options.alpha, compute)
                               : product(x.flipped(), dc.matrix, rows, options.alpha, compute));
    }
  }

  void release() override {
    a.reset();
    b.reset();
  }

 private:
  // The gradient of a leaf is f32, whatever copy of it was multiplied with.
  void give(Gradients& grads, int i, const Tensor& input, std::int64_t batch, Matmul m) const {
    const Tensor block = grads.accumulator(i);
    if (block.defined() && block.shape() == input.shape() && input.rank() == 2) {
      sum_of_products(m, block, batch, true);
      grads.done(i);
      return;
    }
    const bool summed = batch > 1 && input.rank() == 2;
    const DType dtype = summed || inputs[static_cast<std::size_t>(i)].leaf != nullptr ? DType::f32 : input.dtype();
    Tensor d = batch == 0 ? zeros(input.shape(), dtype, input.device()) : empty(input.shape(), dtype, input.device());
    if (summed) {
      sum_of_products(m, d, batch, false);
    } else {
      set_result(m, d, batch);
      run_product(d.device(), m);
    }
    grads.add(i, std::move(d));
  }
};

Tensor matmul_checked(const Tensor& a, const Tensor& b, const MatmulOptions& options, const Shape& shape) {
  const std::int64_t depth = a.size(options.transpose_a ? -2 : -1);
  const Compute compute = compute_of(options.compute, a.dtype(), b.dtype());
  check_compute("matmul", compute, a.device());
  Tensor c = empty(shape, check_result_dtype("matmul", {"a", a}, options.out.value_or(a.dtype())), a.device());
  const Operand x(a, options.transpose_a), y(b, options.transpose_b);
  Matmul m = product(x.matrix, y.matrix, depth, options.alpha, compute);
  set_result(m, c, batch_of(c));
  run_product(a.device(), m);
  if (!needs_grad({&a, &b})) return c;
  auto node = std::make_shared<MatmulNode>();
  node->a = Saved("a", a);
  node->b = Saved("b", b);
  node->options = options;
  node->compute = compute;
  return record(std::move(c), std::move(node), {&a, &b});
}

}  // namespace

Tensor matmul(const Tensor& a, const Tensor& b, const MatmulOptions& options) {
  check(a.rank() >= 2 && b.rank() >= 2, "matmul", "both need at least two dimensions", {{"a", a}, {"b", b}});
  check_compute_dtype("matmul", {{"a", a}, {"b", b}});
  check_dtype(a.dtype() == b.dtype(), "matmul", "a and b must have one dtype", {{"a", a}, {"b", b}});
  check_same_device("matmul", {{"a", a}, {"b", b}});
  const std::int64_t rows = a.size(options.transpose_a ? -1 : -2), depth = a.size(options.transpose_a ? -2 : -1);
  const std::int64_t cols = b.size(options.transpose_b ? -2 : -1);
  check(b.size(options.transpose_b ? -1 : -2) == depth, "matmul",
        std::string("inner sizes must agree: columns of ") + (options.transpose_a ? "a^T" : "a") + ", rows of " +
            (options.transpose_b ? "b^T" : "b"),
        {{"a", a}, {"b", b}});
  Shape shape = a.rank() >= b.rank() ? a.shape() : b.shape();
  if (a.rank() > 2 && b.rank() > 2) {
    bool equal = a.rank() == b.rank();
    for (int d = 0; equal && d < a.rank() - 2; ++d) equal = a.size(d) == b.size(d);
    check(equal, "matmul", "leading dimensions must be equal, or absent in one", {{"a", a}, {"b", b}});
  }
  shape[-2] = rows;
  shape[-1] = cols;
  // Rows of a batch that share b are the rows of one product.
  if (a.rank() > 2 && b.rank() == 2 && !options.transpose_a && a.count() > 0)
    return matmul(a.reshape({-1, depth}), b, options).reshape(shape);
  return matmul_checked(a, b, options, shape);
}

}  // namespace twinlens
