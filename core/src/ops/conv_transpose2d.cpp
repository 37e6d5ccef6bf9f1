// conv_transpose2d: what conv2d does to the gradient of its result. Every pixel of x times the weight is a window, and windows are added
// where they lie (col2im); backward reads the windows of dy (im2col).

#include <algorithm>

#include "twinlens/core/autograd.h"
#include "twinlens/core/check.h"
#include "twinlens/core/ops.h"
#include "twinlens/kernels/im2col.h"

namespace twinlens {
namespace {

struct AddWindowsNode final : Node {
  ConvGeometry g{};
  const char* name() const override { return "col2im"; }
  void backward(const Tensor& dy_in, Gradients& grads) override {
    const Tensor dy = dense(dy_in);
    Tensor dwindows = empty(input_shapes[0], dy.dtype(), dy.device());
    run(current_stream(dy.device()), Im2Col{g, const_buffer_of(dy), buffer_of(dwindows)});
    grads.add(0, std::move(dwindows));
  }
  void release() override {}
};

// windows (B H W, kh kw O) -> (B, H', W', O). `g` is the geometry of the convolution that goes back from y to x.
Tensor add_windows(const Tensor& windows, const ConvGeometry& g) {
  Tensor y = empty({g.batch, g.height, g.width, g.channels}, windows.dtype(), windows.device());
  run(current_stream(windows.device()), Col2Im{g, const_buffer_of(windows), buffer_of(y)});
  if (!needs_grad({&windows})) return y;
  auto node = std::make_shared<AddWindowsNode>();
  node->g = g;
  return record(std::move(y), std::move(node), {&windows});
}

void check_arguments(const Tensor& x, const Tensor& w, const Tensor& bias, const ConvTransposeOptions& o) {
  constexpr const char* op = "conv_transpose2d";
  check(x.rank() == 4 && w.rank() == 4, op, "x must be (B, H, W, C) and w (C, O / groups, kh, kw)", {{"x", x}, {"w", w}});
  check_compute_dtype(op, {{"x", x}, {"w", w}});
  check_same_device(op, {{"x", x}, {"w", w}, {"bias", bias}});
  check(o.stride > 0 && o.dilation > 0 && o.padding >= 0 && o.groups > 0, op,
        "stride, dilation and groups must be positive, padding not negative", {{"x", x}});
  check(o.output_padding >= 0 && o.output_padding < std::max(o.stride, o.dilation), op,
        "output padding " + std::to_string(o.output_padding) + " must be smaller than stride or dilation", {{"x", x}});
  check(x.size(3) == w.size(0) && w.size(0) % o.groups == 0, op,
        "channels do not fit the weight in " + std::to_string(o.groups) + " groups", {{"x", x}, {"w", w}});
  check(x.size(1) > 0 && x.size(2) > 0, op, "the picture is empty", {{"x", x}});
  check(w.size(2) > 0 && w.size(3) > 0, op, "the kernel is empty", {{"w", w}});
  if (!bias.defined()) return;
  check(bias.shape() == Shape{w.size(1) * o.groups}, op, "bias must match the channels of the result", {{"w", w}, {"bias", bias}});
  check_dtype(bias.dtype() == DType::f32, op, "bias must be f32", {{"bias", bias}});
}

}  // namespace

Tensor conv_transpose2d(const Tensor& x, const Tensor& w, const Tensor& bias, const ConvTransposeOptions& o) {
  check_arguments(x, w, bias, o);
  const auto extent = [&](std::int64_t size, std::int64_t kernel) {
    return (size - 1) * o.stride - 2 * std::int64_t{o.padding} + o.dilation * (kernel - 1) + o.output_padding + 1;
  };
  const std::int64_t kh = w.size(2), kw = w.size(3), in = x.size(3) / o.groups;
  const ConvGeometry g{
      x.size(0), extent(x.size(1), kh), extent(x.size(2), kw), w.size(1), x.size(1), x.size(2), kh, kw, o.stride, o.padding, o.dilation};
  check(g.height > 0 && g.width > 0, "conv_transpose2d", "the padding takes the whole picture away", {{"x", x}, {"w", w}});
  LinearOptions product;
  product.compute = o.compute;
  std::vector<Tensor> parts;
  for (int group = 0; group < o.groups; ++group) {
    const Tensor pixels = o.groups == 1 ? x : x.slice(3, group * in, (group + 1) * in);
    const Tensor weight = o.groups == 1 ? w : w.slice(0, group * in, (group + 1) * in);
    const Tensor matrix = dense(weight.permute({2, 3, 1, 0})).reshape({kh * kw * g.channels, in});
    const Tensor windows = linear(dense(pixels).reshape({g.batch * g.out_height * g.out_width, in}), matrix, {}, product);
    parts.push_back(add_windows(windows, g));
  }
  const Tensor y = parts.size() == 1 ? parts[0] : concat(parts, 3);
  return bias.defined() ? add(y, bias.to(y.dtype())) : y;
}

}  // namespace twinlens
