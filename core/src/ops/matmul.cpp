#include "twinlens/kernels/matmul.h"

#include "core/src/ops/product.h"
#include "twinlens/core/autograd.h"
#include "twinlens/core/check.h"
#include "twinlens/core/ops.h"

namespace twinlens {

MatmulOperand operand_of(const Tensor& x, bool transposed) {
  MatmulOperand o;
  o.data = x.raw();
  o.dtype = x.dtype();
  o.stride = x.rank() < 2 || x.size(-2) <= 1 ? (x.rank() == 0 ? 1 : x.size(-1)) : x.strides()[-2];
  o.transposed = transposed;
  return o;
}

bool computes_bf16(Compute compute, const Tensor& a, const Tensor& b) {
  return compute == Compute::bf16 || a.dtype() == DType::bf16 || b.dtype() == DType::bf16;
}

void run_product(Matmul args, Device device) {
  Tensor scratch = empty({scratch_bytes(args)}, DType::u8, device);
  args.scratch = scratch.raw();
  run(current_stream(device), args);
}

namespace {

// Leading dimensions as one batch; 1 when there are none.
std::int64_t batch_of(const Tensor& x) { return x.rank() <= 2 ? 1 : x.count() / std::max<std::int64_t>(1, x.size(-1) * x.size(-2)); }

// Rows dense, all leading dimensions back to back.
Tensor batched(const Tensor& x) {
  if (x.rank() <= 2) return dense_rows(x);
  return dense(x);
}

// c = alpha op(a) op(b), no gradient.
Tensor product(const Tensor& a_in, const Tensor& b_in, const MatmulOptions& options) {
  const Tensor a = batched(a_in), b = batched(b_in);
  const std::int64_t n = a.size(options.transpose_a ? -1 : -2), k = a.size(options.transpose_a ? -2 : -1);
  const std::int64_t m = b.size(options.transpose_b ? -2 : -1);
  Shape shape = a.rank() >= b.rank() ? a.shape() : b.shape();
  shape[-2] = n;
  shape[-1] = m;
  const std::int64_t batch = std::max(batch_of(a), batch_of(b));
  Tensor c = empty(shape, options.out.value_or(a.dtype()), a.device());
  Matmul args;
  args.a = operand_of(a, options.transpose_a);
  args.b = operand_of(b, options.transpose_b);
  args.a.batch_stride = batch_of(a) == 1 ? 0 : a.size(-1) * a.size(-2);
  args.b.batch_stride = batch_of(b) == 1 ? 0 : b.size(-1) * b.size(-2);
  args.c = rows_of(c);
  args.c.rows = n;
  args.c.cols = m;
  args.c.stride = m;
  args.c_batch_stride = n * m;
  args.batch = c.rank() <= 2 ? 1 : batch;
  args.depth = k;
  args.alpha = static_cast<float>(options.alpha);
  args.bf16 = computes_bf16(options.compute, a, b);
  if (c.count() > 0) run_product(args, a.device());
  return c;
}

struct MatmulNode final : Node {
  Saved a, b;
  MatmulOptions options;

  const char* name() const override { return "matmul"; }

  void backward(const Tensor& dc, Gradients& grads) override {
    const Tensor x = a.get(), y = b.get();
    // d op(a) = alpha dc op(b)^T; where op transposes, the two factors change places and the result is the transpose.
    MatmulOptions o = options;
    if (grads.wants(0)) {
      o.out = x.dtype();
      o.transpose_a = options.transpose_a ? options.transpose_b : false;
      o.transpose_b = options.transpose_a ? true : !options.transpose_b;
      grads.add(0, summed(options.transpose_a ? product(y, dc, o) : product(dc, y, o), x));
    }
    if (grads.wants(1)) {
      o.out = y.dtype();
      o.transpose_a = options.transpose_b ? true : !options.transpose_a;
      o.transpose_b = options.transpose_b ? options.transpose_a : false;
      grads.add(1, summed(options.transpose_b ? product(dc, x, o) : product(x, dc, o), y));
    }
  }

  // An operand that the batch shared gets the sum over the batch.
  static Tensor summed(const Tensor& g, const Tensor& x) { return g.shape() == x.shape() ? g : sum_to(g, x.shape()); }

  void release() override {
    a.reset();
    b.reset();
  }
};

}  // namespace

Tensor matmul(const Tensor& a, const Tensor& b, const MatmulOptions& options) {
  check(a.rank() >= 2 && b.rank() >= 2, "matmul", "a and b need at least two dimensions", {{"a", a}, {"b", b}});
  check_compute_dtype("matmul", {{"a", a}, {"b", b}});
  check_same_device("matmul", {{"a", a}, {"b", b}});
  const std::int64_t ka = a.size(options.transpose_a ? -2 : -1), kb = b.size(options.transpose_b ? -1 : -2);
  check(ka == kb, "matmul", "the inner dimensions must be equal", {{"a", a}, {"b", b}});
  bool fits = true;
  if (a.rank() > 2 && b.rank() > 2) {
    fits = a.rank() == b.rank();
    for (int d = 0; fits && d < a.rank() - 2; ++d) fits = a.size(d) == b.size(d);
  }
  check(fits, "matmul", "leading dimensions must be equal, or absent in one of them", {{"a", a}, {"b", b}});
  Tensor c = product(a, b, options);
  if (!needs_grad({&a, &b})) return c;
  auto node = std::make_shared<MatmulNode>();
  node->a = Saved("a", a);
  node->b = Saved("b", b);
  node->options = options;
  return record(std::move(c), std::move(node), {&a, &b});
}

}  // namespace twinlens
