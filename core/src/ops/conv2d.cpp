// conv2d: the windows of x times the weight, which is read as (O, kh kw C). The product reads the windows where they lie in x; the plain
// form, with `windows_in_memory`, writes them out first (im2col). Groups are convolutions of channel slices.
//   dW = dY^T windows(x)
//   dX = windows(dY) flipped W for stride 1: a convolution with the kernel turned by 180 degrees (Dumoulin & Visin 2016,
//        arXiv:1603.07285, section 4); otherwise every pixel gathers from the windows that saw it (col2im of dY W).

#include "core/src/ops/product.h"

#include "twinlens/core/autograd.h"
#include "twinlens/core/check.h"
#include "twinlens/core/ops.h"
#include "twinlens/kernels/im2col.h"

namespace twinlens {
namespace {

struct Convolution {
  ConvGeometry g;
  Compute compute = Compute::fp32;
  bool windows_in_memory = false;

  bool is_plain_product() const { return g.kernel_height == 1 && g.kernel_width == 1 && g.stride == 1 && g.padding == 0; }
  std::int64_t window() const { return g.kernel_height * g.kernel_width * g.channels; }
  std::int64_t pixels() const { return g.batch * g.out_height * g.out_width; }
  Shape map_shape() const { return {g.batch, g.height, g.width, g.channels}; }
};

MatmulOperand rows_operand(const Tensor& x) { return {x.raw(), x.dtype(), x.size(-1)}; }

// The matrix of windows of x as an operand; `keep` holds what it points to.
MatmulOperand windows_operand(const Tensor& x, const Convolution& conv, Tensor& keep) {
  keep = x;
  if (conv.is_plain_product()) return {x.raw(), x.dtype(), conv.g.channels};
  if (conv.windows_in_memory || x.device().is_cuda()) {
    keep = empty({conv.pixels(), conv.window()}, x.dtype(), x.device());
    run(current_stream(x.device()), Im2Col{conv.g, const_buffer_of(x), buffer_of(keep)});
    return rows_operand(keep);
  }
  MatmulOperand m{x.raw(), x.dtype(), conv.window()};
  m.windows = conv.g;
  return m;
}

// y (pixels, O) = windows(x) w^T, w (O, kh kw C).
void multiply_windows(const Tensor& x, const Convolution& conv, const Tensor& w, Tensor& y) {
  Tensor keep;
  Matmul m;
  m.a = windows_operand(x, conv, keep);
  m.b = rows_operand(w);
  m.b.transposed = true;
  m.c = rows_of(y);
  m.depth = conv.window();
  m.compute = conv.compute;
  run_product(x.device(), m);
}

struct ConvNode final : Node {
  Saved x, w;  // x (B, H, W, C) dense, w (O, kh kw C)
  Convolution conv;
  const char* name() const override { return "conv2d"; }

  void backward(const Tensor& dy_in, Gradients& grads) override {
    const NoGrad guard;
    const Tensor dy = dense(dy_in);  // (pixels, O)
    if (grads.wants(0)) grads.add(0, input_gradient(dy));
    if (grads.wants(1)) grads.add(1, weight_gradient(dy));
  }
  void release() override {
    x.reset();
    w.reset();
  }

 private:
  Tensor weight_gradient(const Tensor& dy) const {
    Tensor dw = empty(w.get().shape(), DType::f32, dy.device()), keep;
    Matmul m;
    m.a = rows_operand(dy);
    m.a.transposed = true;
    m.b = windows_operand(x.get(), conv, keep);
    m.c = rows_of(dw);
    m.depth = conv.pixels();
    m.compute = conv.compute;
    run_product(dy.device(), m);
    return dw;
  }

  Tensor input_gradient(const Tensor& dy) const {
    const ConvGeometry& g = conv.g;
    const std::int64_t out = dy.size(-1), reach_h = g.dilation * (g.kernel_height - 1), reach_w = g.dilation * (g.kernel_width - 1);
    if (g.stride == 1 && reach_h == reach_w && g.padding <= reach_h && !conv.windows_in_memory && !conv.is_plain_product() &&
        !dy.device().is_cuda()) {
      Convolution back = conv;
      back.g = {g.batch, g.out_height,        g.out_width, out, g.height, g.width, g.kernel_height, g.kernel_width,
                1,       reach_h - g.padding, g.dilation};
      Tensor dx = empty({back.pixels(), g.channels}, x.get().dtype(), dy.device());
      multiply_windows(dy, back, turned(out), dx);
      return dx.reshape(conv.map_shape());
    }
    Tensor rows = empty({conv.pixels(), conv.window()}, x.get().dtype(), dy.device());
    Matmul m;
    m.a = rows_operand(dy);
    m.b = rows_operand(w.get());
    m.c = rows_of(rows);
    m.depth = out;
    m.compute = conv.compute;
    run_product(dy.device(), m);
    if (conv.is_plain_product()) return rows.reshape(conv.map_shape());
    Tensor dx = empty(conv.map_shape(), rows.dtype(), rows.device());
    run(current_stream(rows.device()), Col2Im{g, const_buffer_of(rows), buffer_of(dx)});
    return dx;
  }

  // (C, kh kw O): the weight of the convolution that takes dy back to dx.
  Tensor turned(std::int64_t out) const {
    const std::int64_t taps = conv.g.kernel_height * conv.g.kernel_width;
    std::vector<std::int64_t> backwards(static_cast<std::size_t>(taps));
    for (std::int64_t i = 0; i < taps; ++i) backwards[static_cast<std::size_t>(i)] = taps - 1 - i;
    const Tensor by_tap = w.get().reshape({out, taps, conv.g.channels});
    const Tensor flipped = index_select(by_tap, 1, from_vector(backwards, {taps}).to(w.get().device()));
    return dense(flipped.permute({2, 1, 0})).reshape({conv.g.channels, taps * out});
  }
};

// (pixels, O) from x (B, H, W, C) and w (O, kh kw C).
Tensor convolve(const Tensor& x_in, const Tensor& w, const Convolution& conv, DType dtype) {
  const Tensor x = dense(x_in);
  Tensor y = empty({conv.pixels(), w.size(0)}, dtype, x.device());
  multiply_windows(x, conv, w, y);
  if (!needs_grad({&x_in, &w})) return y;
  auto node = std::make_shared<ConvNode>();
  node->x = Saved("x", x);
  node->w = Saved("w", w);
  node->conv = conv;
  return record(std::move(y), std::move(node), {&x_in, &w});
}

}  // namespace

Tensor conv2d(const Tensor& x, const Tensor& w, const Tensor& bias, const ConvOptions& o) {
  check(x.rank() == 4 && w.rank() == 4, "conv2d", "x must be (B, H, W, C) and w (O, C / groups, kh, kw)", {{"x", x}, {"w", w}});
  check_compute_dtype("conv2d", {{"x", x}, {"w", w}});
  check_same_device("conv2d", {{"x", x}, {"w", w}, {"bias", bias}});
  check(o.stride > 0 && o.dilation > 0 && o.padding >= 0 && o.groups > 0, "conv2d",
        "stride, dilation and groups must be positive, padding not negative", {{"x", x}});
  check(x.size(3) == w.size(1) * o.groups && w.size(0) % o.groups == 0, "conv2d",
        "channels do not fit the weight in " + std::to_string(o.groups) + " groups", {{"x", x}, {"w", w}});
  check(!bias.defined() || bias.shape() == Shape{w.size(0)}, "conv2d", "bias must match the first dim of w", {{"w", w}, {"bias", bias}});
  const auto extent = [&](std::int64_t size, std::int64_t kernel) {
    return (size + 2 * o.padding - o.dilation * (kernel - 1) - 1) / o.stride + 1;
  };
  const std::int64_t kh = w.size(2), kw = w.size(3), out = w.size(0) / o.groups;
  check(x.size(1) + 2 * o.padding >= o.dilation * (kh - 1) + 1 && x.size(2) + 2 * o.padding >= o.dilation * (kw - 1) + 1, "conv2d",
        "the kernel is larger than the padded picture", {{"x", x}, {"w", w}});
  Convolution conv;
  conv.g = {x.size(0), x.size(1), x.size(2), w.size(1), extent(x.size(1), kh), extent(x.size(2), kw), kh,
            kw,        o.stride,  o.padding, o.dilation};
  conv.compute = compute_of(o.compute, x.dtype(), w.dtype());
  check_compute("conv2d", conv.compute, x.device());
  conv.windows_in_memory = o.windows_in_memory;
  const DType dtype = check_result_dtype("conv2d", {"x", x}, o.out.value_or(x.dtype()));
  std::vector<Tensor> parts;
  for (int group = 0; group < o.groups; ++group) {
    const Tensor in = o.groups == 1 ? x : x.slice(3, group * conv.g.channels, (group + 1) * conv.g.channels);
    const Tensor weight = o.groups == 1 ? w : w.slice(0, group * out, (group + 1) * out);
    const Tensor matrix = dense(weight.permute({0, 2, 3, 1})).reshape({out, conv.window()});  // (O, kh kw C)
    parts.push_back(convolve(in, matrix, conv, dtype));
  }
  const Tensor y =
      (parts.size() == 1 ? parts[0] : concat(parts, 1)).reshape({conv.g.batch, conv.g.out_height, conv.g.out_width, w.size(0)});
  return bias.defined() ? add(y, bias.to(dtype)) : y;
}

}  // namespace twinlens
