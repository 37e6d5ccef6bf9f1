// argmax and topk over the last dimension, max over any.

#include "twinlens/kernels/topk.h"

#include "core/src/ops/dimension.h"

#include "twinlens/core/autograd.h"
#include "twinlens/core/check.h"
#include "twinlens/core/ops.h"

namespace twinlens {
namespace {

struct TopKNode final : Node {
  Saved indices;
  Shape shape;  // of x

  const char* name() const override { return "topk"; }

  void backward(const Tensor& dy_in, Gradients& grads) override {
    const Tensor dy = dense_rows(dy_in);
    Tensor dx = empty(shape, dy.dtype(), dy.device());
    run(current_stream(dy.device()), TopKBackward{const_rows_of(dy), static_cast<const std::int64_t*>(indices.get().raw()), rows_of(dx)});
    grads.add(0, std::move(dx));
  }

  void release() override { indices.reset(); }
};

}  // namespace

TopK topk(const Tensor& x, int k) {
  check_compute_dtype("topk", {{"x", x}});
  check(x.rank() >= 1 && k >= 0 && k <= x.size(-1), "topk",
        "k = " + std::to_string(k) + " must be between 0 and the size of the last dimension", {{"x", x}});
  Shape result = x.shape();
  result[-1] = k;
  const Tensor rows = dense_rows(x);
  TopK top{empty(result, x.dtype(), x.device()), empty(result, DType::i64, x.device())};
  run(current_stream(x.device()), TopKForward{const_rows_of(rows), rows_of(top.values), static_cast<std::int64_t*>(top.indices.raw())});
  if (!needs_grad({&x})) return top;
  auto node = std::make_shared<TopKNode>();
  node->indices = Saved("indices", top.indices);
  node->shape = x.shape();
  top.values = record(std::move(top.values), std::move(node), {&x});
  return top;
}

Max max(const Tensor& x, int dim, bool keep) {
  check(x.rank() >= 1, "max", "needs at least one dimension", {{"x", x}});
  check_compute_dtype("max", {{"x", x}});
  const int d = dimension_of("max", x, dim);
  check(x.size(d) > 0, "max", "dimension " + std::to_string(d) + " is empty", {{"x", x}});
  const TopK first = topk(x.transpose(d, -1), 1);
  const auto in_place = [&](const Tensor& y) { return dense(keep ? y.transpose(d, -1) : y.transpose(d, -1).squeeze(d)); };
  return {in_place(first.values), in_place(first.indices)};
}

Tensor argmax(const Tensor& x) {
  check(x.rank() >= 1 && x.size(-1) > 0, "argmax", "needs at least one column", {{"x", x}});
  check_dtype(is_float(x.dtype()) || x.dtype() == DType::i64, "argmax", "must be f32, bf16 or i64", {{"x", x}});
  if (x.dtype() != DType::i64) check_compute_dtype("argmax", {{"x", x}});  // f16
  const Tensor rows = dense_rows(x.detach());
  Tensor y = empty(x.shape().without(-1), DType::i64, x.device());
  run(current_stream(x.device()), ArgMax{const_rows_of(rows), static_cast<std::int64_t*>(y.raw())});
  return y;
}

}  // namespace twinlens
