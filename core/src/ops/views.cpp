// Views and copies: reshape, transpose, permute, slice, select, squeeze, unsqueeze, expand, to, clone, dense. A view shares storage; its
// gradient is the same rearrangement backwards.

#include "core/src/ops/dimension.h"
#include "core/src/tensor_state.h"

#include "twinlens/core/autograd.h"
#include "twinlens/core/check.h"
#include "twinlens/core/ops.h"

namespace twinlens {
namespace {

// y = permutation of the dimensions of x.
struct PermuteNode final : Node {
  std::vector<int> inverse;
  const char* name() const override { return "permute"; }
  void backward(const Tensor& dy, Gradients& grads) override { grads.add(0, dy.permute(inverse)); }
  void release() override {}
};

struct ReshapeNode final : Node {
  Shape shape;
  const char* name() const override { return "reshape"; }
  void backward(const Tensor& dy, Gradients& grads) override { grads.add(0, dy.reshape(shape)); }
  void release() override {}
};

struct SliceNode final : Node {
  Shape shape;
  int d = 0;
  std::int64_t begin = 0;
  const char* name() const override { return "slice"; }
  void backward(const Tensor& dy, Gradients& grads) override {
    Tensor dx = zeros(shape, dy.dtype(), dy.device());
    dx.slice(d, begin, begin + dy.size(d)).copy_(dy);
    grads.add(0, std::move(dx));
  }
  void release() override {}
};

struct ExpandNode final : Node {
  Shape shape;
  const char* name() const override { return "expand"; }
  void backward(const Tensor& dy, Gradients& grads) override { grads.add(0, sum_to(dy, shape)); }
  void release() override {}
};

// A change of dtype, device or layout: the gradient takes the way back.
struct MoveNode final : Node {
  Device device;
  const char* name() const override { return "to"; }
  void backward(const Tensor& dy, Gradients& grads) override { grads.add(0, dy.to(device)); }
  void release() override {}
};

struct CastNode final : Node {
  DType dtype = DType::f32;
  const char* name() const override { return "cast"; }
  void backward(const Tensor& dy, Gradients& grads) override { grads.add(0, dy.to(dtype)); }
  void release() override {}
};

// A copy, as the views it stands for: an f32 gradient of a rounded weight stays f32 on its way to the master.
struct CloneNode final : Node {
  const char* name() const override { return "clone"; }
  void backward(const Tensor& dy, Gradients& grads) override { grads.add(0, dy); }
  void release() override {}
};

template <class N, class Fill>
Tensor finish(Tensor y, const Tensor& x, Fill fill) {
  if (!needs_grad({&x})) return y;
  auto node = std::make_shared<N>();
  fill(*node);
  return record(std::move(y), std::move(node), {&x});
}

Tensor copy_to(const Tensor& x, DType dtype, Device device) {
  const NoGrad guard;  // who calls this records it
  Tensor y = empty(x.shape(), dtype, device);
  y.copy_(x);
  return y;
}

}  // namespace

Tensor Tensor::reshape(Shape wanted) const {
  const Shape asked = wanted;
  int open = -1;
  for (int d = 0; d < wanted.rank(); ++d) {
    if (wanted[d] == -1 && open < 0) {
      open = d;
    } else {
      check(wanted[d] >= 0, "reshape", "sizes are 0 or more, and one at most is -1; " + to_string(asked), {{"x", *this}});
    }
  }
  if (open >= 0) {
    const std::int64_t known = wanted.without(open).count();
    check(known > 0, "reshape", "beside a size of 0, -1 can be anything; " + to_string(asked), {{"x", *this}});
    wanted[open] = count() / known;
  }
  check(wanted.count() == count(), "reshape", "cannot make " + to_string(asked) + " of so many elements", {{"x", *this}});
  const Tensor source = dense(*this);
  Tensor y(make_view(source, wanted, dense_strides(wanted), 0));
  return finish<ReshapeNode>(std::move(y), *this, [&](ReshapeNode& node) { node.shape = shape(); });
}

Tensor Tensor::permute(const std::vector<int>& order) const {
  check(static_cast<int>(order.size()) == rank(), "permute", "the order must name every dimension once", {{"x", *this}});
  Shape new_shape = Shape::of_rank(rank()), new_strides = new_shape;
  std::vector<int> inverse(order.size(), -1);
  for (int d = 0; d < rank(); ++d) {
    const int from = dimension_of("permute", *this, order[static_cast<std::size_t>(d)]);
    check(inverse[static_cast<std::size_t>(from)] < 0, "permute", "the order must name every dimension once", {{"x", *this}});
    inverse[static_cast<std::size_t>(from)] = d;
    new_shape[d] = shape()[from];
    new_strides[d] = strides()[from];
  }
  Tensor y(make_view(*this, new_shape, new_strides, 0));
  return finish<PermuteNode>(std::move(y), *this, [&](PermuteNode& node) { node.inverse = inverse; });
}

Tensor Tensor::transpose(int a, int b) const {
  std::vector<int> order(static_cast<std::size_t>(rank()));
  for (int d = 0; d < rank(); ++d) order[static_cast<std::size_t>(d)] = d;
  const int from = dimension_of("transpose", *this, a), to = dimension_of("transpose", *this, b);
  std::swap(order[static_cast<std::size_t>(from)], order[static_cast<std::size_t>(to)]);
  return permute(order);
}

Tensor Tensor::slice(int d, std::int64_t begin, std::int64_t end) const {
  const int dim = dimension_of("slice", *this, d);
  check(0 <= begin && begin <= end && end <= size(dim), "slice",
        "range [" + std::to_string(begin) + "," + std::to_string(end) + ") is outside dimension " + std::to_string(dim), {{"x", *this}});
  Shape new_shape = shape();
  new_shape[dim] = end - begin;
  Tensor y(make_view(*this, new_shape, strides(), begin * strides()[dim]));
  return finish<SliceNode>(std::move(y), *this, [&](SliceNode& node) {
    node.shape = shape();
    node.d = dim;
    node.begin = begin;
  });
}

Tensor Tensor::select(int d, std::int64_t index) const {
  const int dim = dimension_of("select", *this, d);
  check(0 <= index && index < size(dim), "select",
        "index " + std::to_string(index) + " is outside [0, " + std::to_string(size(dim)) + ") of dimension " + std::to_string(dim),
        {{"x", *this}});
  return slice(dim, index, index + 1).squeeze(dim);
}

Tensor Tensor::squeeze(int d) const {
  const int dim = dimension_of("squeeze", *this, d);
  check(size(dim) == 1, "squeeze", "the dimension must have size 1", {{"x", *this}});
  Tensor y(make_view(*this, shape().without(dim), strides().without(dim), 0));
  return finish<ReshapeNode>(std::move(y), *this, [&](ReshapeNode& node) { node.shape = shape(); });
}

Tensor Tensor::unsqueeze(int d) const {
  const int dim = d < 0 ? d + rank() + 1 : d;
  Shape new_shape, new_strides;
  for (int i = 0; i <= rank(); ++i) {
    if (i == dim) {
      new_shape.push_back(1);
      new_strides.push_back(i < rank() ? shape()[i] * strides()[i] : 1);
    }
    if (i < rank()) {
      new_shape.push_back(shape()[i]);
      new_strides.push_back(strides()[i]);
    }
  }
  check(new_shape.rank() == rank() + 1, "unsqueeze", "dimension " + std::to_string(d) + " does not exist", {{"x", *this}});
  Tensor y(make_view(*this, new_shape, new_strides, 0));
  return finish<ReshapeNode>(std::move(y), *this, [&](ReshapeNode& node) { node.shape = shape(); });
}

Tensor Tensor::expand(const Shape& wanted) const {
  if (wanted == shape()) return *this;
  for (const std::int64_t size : wanted) check(size >= 0, "expand", "sizes are 0 or more; " + to_string(wanted), {{"x", *this}});
  check(broadcast_shape("expand", shape(), wanted) == wanted, "expand", "cannot be broadcast to " + to_string(wanted), {{"x", *this}});
  Shape new_strides = Shape::of_rank(wanted.rank());
  for (int d = 1; d <= wanted.rank(); ++d) {
    const bool broadcast = d > rank() || (size(-d) == 1 && wanted[-d] != 1);
    new_strides[-d] = broadcast ? 0 : strides()[-d];
  }
  Tensor y(make_view(*this, wanted, new_strides, 0));
  return finish<ExpandNode>(std::move(y), *this, [&](ExpandNode& node) { node.shape = shape(); });
}

Tensor Tensor::to(DType dtype) const {
  if (dtype == this->dtype()) return *this;
  Tensor y = copy_to(*this, dtype, device());
  return is_float(dtype) ? finish<CastNode>(std::move(y), *this, [&](CastNode& node) { node.dtype = this->dtype(); }) : y;
}

Tensor Tensor::to(Device device) const {
  if (device == this->device()) return *this;
  Tensor y = copy_to(*this, dtype(), device);
  return finish<MoveNode>(std::move(y), *this, [&](MoveNode& node) { node.device = this->device(); });
}

Tensor Tensor::clone() const {
  Tensor y = copy_to(*this, dtype(), device());
  return finish<CloneNode>(std::move(y), *this, [](CloneNode&) {});
}

Tensor dense(const Tensor& x) { return x.is_dense() ? x : x.clone(); }

Tensor dense_rows(const Tensor& x) {
  if (x.rank() == 0) return x;
  bool fits = x.size(-1) <= 1 || x.strides()[-1] == 1;
  std::int64_t expected = -1;
  for (int d = x.rank() - 2; d >= 0 && fits; --d) {
    if (x.size(d) == 1) continue;
    fits = expected < 0 || x.strides()[d] == expected;
    expected = x.strides()[d] * x.size(d);
  }
  return fits ? x : x.clone();
}

}  // namespace twinlens
