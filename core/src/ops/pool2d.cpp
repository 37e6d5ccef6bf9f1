#include "twinlens/kernels/pool2d.h"

#include "twinlens/core/autograd.h"
#include "twinlens/core/check.h"
#include "twinlens/core/ops.h"

namespace twinlens {
namespace {

PoolWindows windows_of(const char* op, const Tensor& x, int kernel, int stride, std::int64_t padding) {
  check_compute_dtype(op, {{"x", x}});
  check(x.rank() == 4, op, "x must be (B, H, W, C)", {{"x", x}});
  const std::string sizes =
      "kernel " + std::to_string(kernel) + ", stride " + std::to_string(stride) + ", padding " + std::to_string(padding);
  check(kernel >= 1 && stride >= 1 && padding >= 0 && 2 * padding <= kernel, op,
        "needs kernel >= 1, stride >= 1 and 0 <= padding <= kernel / 2, not " + sizes, {{"x", x}});
  check(x.size(1) > 0 && x.size(2) > 0, op, "the map is empty", {{"x", x}});
  check(x.size(1) + 2 * padding >= kernel && x.size(2) + 2 * padding >= kernel, op, "the window is larger than the map: " + sizes,
        {{"x", x}});
  PoolWindows w{x.size(0), x.size(1), x.size(2), x.size(3), 0, 0, kernel, stride, padding};
  w.out_height = (w.height + 2 * w.padding - w.kernel) / w.stride + 1;
  w.out_width = (w.width + 2 * w.padding - w.kernel) / w.stride + 1;
  return w;
}

Shape output_shape(const PoolWindows& w) { return {w.batch, w.out_height, w.out_width, w.channels}; }

// Gradients have the type of dy.
Tensor empty_input(const PoolWindows& w, const Tensor& dy) {
  return empty({w.batch, w.height, w.width, w.channels}, dy.dtype(), dy.device());
}

struct AvgPool2dNode final : Node {
  PoolWindows windows;

  const char* name() const override { return "avg_pool2d"; }

  void backward(const Tensor& dy_in, Gradients& grads) override {
    if (!grads.wants(0)) return;
    const Tensor dy = dense(dy_in);
    Tensor dx = empty_input(windows, dy);
    run(current_stream(dy.device()), AvgPool2dBackward{const_buffer_of(dy), dx.raw(), windows});
    grads.add(0, std::move(dx));
  }

  void release() override {}
};

struct MaxPool2dNode final : Node {
  Saved where;
  PoolWindows windows;

  const char* name() const override { return "max_pool2d"; }

  void backward(const Tensor& dy_in, Gradients& grads) override {
    if (!grads.wants(0)) return;
    const Tensor dy = dense(dy_in);
    Tensor dx = empty_input(windows, dy);
    run(current_stream(dy.device()),
        MaxPool2dBackward{const_buffer_of(dy), static_cast<const std::int32_t*>(where.get().raw()), dx.raw(), windows});
    grads.add(0, std::move(dx));
  }

  void release() override { where.reset(); }
};

}  // namespace

Tensor avg_pool2d(const Tensor& x, int kernel, int stride) {
  const PoolWindows windows = windows_of("avg_pool2d", x, kernel, stride, 0);
  const Tensor source = dense(x);
  Tensor y = empty(output_shape(windows), x.dtype(), x.device());
  run(current_stream(x.device()), AvgPool2dForward{const_buffer_of(source), y.raw(), windows});
  if (!needs_grad({&x})) return y;
  auto node = std::make_shared<AvgPool2dNode>();
  node->windows = windows;
  return record(std::move(y), std::move(node), {&x});
}

Tensor max_pool2d(const Tensor& x, int kernel, int stride, int padding) {
  const PoolWindows windows = windows_of("max_pool2d", x, kernel, stride, padding);
  const Tensor source = dense(x);
  Tensor y = empty(output_shape(windows), x.dtype(), x.device());
  Tensor where = empty(y.shape(), DType::i32, x.device());
  run(current_stream(x.device()), MaxPool2dForward{const_buffer_of(source), y.raw(), static_cast<std::int32_t*>(where.raw()), windows});
  if (!needs_grad({&x})) return y;
  auto node = std::make_shared<MaxPool2dNode>();
  node->where = Saved("where", where);
  node->windows = windows;
  return record(std::move(y), std::move(node), {&x});
}

}  // namespace twinlens
