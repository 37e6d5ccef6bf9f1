#include "core/src/ops/dimension.h"

#include "twinlens/core/autograd.h"
#include "twinlens/core/check.h"
#include "twinlens/core/ops.h"

namespace twinlens {
namespace {

// The gradient of each part is a view of its stretch of dy.
struct ConcatNode final : Node {
  int dim = 0;

  const char* name() const override { return "concat"; }

  void backward(const Tensor& dy, Gradients& grads) override {
    std::int64_t begin = 0;
    for (std::size_t i = 0; i < input_shapes.size(); ++i) {
      const std::int64_t end = begin + input_shapes[i][dim];
      if (grads.wants(static_cast<int>(i))) grads.add(static_cast<int>(i), dy.slice(dim, begin, end));
      begin = end;
    }
  }

  void release() override {}
};

}  // namespace

Tensor concat(const std::vector<Tensor>& parts, int dim) {
  if (parts.empty()) fail(ErrorKind::shape, "concat", "needs at least one part");
  const Tensor& first = parts.front();
  const int d = dimension_of("concat", first, dim);
  Shape result = first.shape();
  result[d] = 0;
  bool wanted = false;
  for (const Tensor& part : parts) {
    check_same_device("concat", {{"first", first}, {"part", part}});
    check_dtype(part.dtype() == first.dtype(), "concat", "all parts must have one dtype", {{"first", first}, {"part", part}});
    bool fits = part.rank() == first.rank();
    for (int i = 0; fits && i < part.rank(); ++i) fits = i == d || part.size(i) == first.size(i);
    check(fits, "concat", "parts may differ in dimension " + std::to_string(d) + " only", {{"first", first}, {"part", part}});
    result[d] += part.size(d);
    wanted = needs_grad({&part}) || wanted;
  }
  Tensor y = empty(result, first.dtype(), first.device());
  {
    const NoGrad guard;
    std::int64_t begin = 0;
    for (const Tensor& part : parts) {
      const std::int64_t end = begin + part.size(d);
      y.slice(d, begin, end).copy_(part);
      begin = end;
    }
  }
  if (!wanted || !is_float(first.dtype())) return y;
  auto node = std::make_shared<ConcatNode>();
  node->dim = d;
  return record(std::move(y), std::move(node), parts);
}

}  // namespace twinlens
