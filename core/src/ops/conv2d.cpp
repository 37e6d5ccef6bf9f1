// conv2d: the windows of x times the weight, which is read as (O, kh kw C). The product reads the windows where they lie in x; the plain
// form, with `windows_in_memory` and where CUDA's product cannot, writes them out first (im2col). Groups are convolutions of channel
// slices.
//   dW = dY^T windows(x)
//   dX = windows(dY) W for stride 1, where windows are seen backwards (padding and dilation below 0): a convolution with the kernel turned
//        by 180 degrees (Dumoulin & Visin 2016, arXiv:1603.07285, section 4). Otherwise every pixel gathers from the windows that saw it
//        (col2im of dY W).

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

// Whether `m`, which has the windows of a convolution as an operand, runs as it is.
bool reads_in_place(const Convolution& conv, Device device, const Matmul& m) {
  return !conv.windows_in_memory && (!device.is_cuda() || cuda_reads_windows(m));
}

// Runs m, one of whose operands is the matrix of windows of x.
void run_with_windows(const Tensor& x, const Convolution& conv, Matmul m, MatmulOperand Matmul::*operand) {
  if (conv.is_plain_product()) {
    m.*operand = {x.raw(), x.dtype(), conv.g.channels, (m.*operand).transposed};
    return run_product(x.device(), m);
  }
  m.*operand = {x.raw(), x.dtype()};
  (m.*operand).windows = conv.g;
  if (reads_in_place(conv, x.device(), m)) return run_product(x.device(), m);
  const Tensor windows = empty({conv.pixels(), conv.window()}, x.dtype(), x.device());
  run(current_stream(x.device()), Im2Col{conv.g, const_buffer_of(x), buffer_of(windows)});
  m.*operand = rows_operand(windows);
  run_product(x.device(), m);
}

// y (pixels, O) = windows(x) w^T, w (O, kh kw C).
void multiply_windows(const Tensor& x, const Convolution& conv, const Tensor& w, Tensor& y) {
  Matmul m;
  m.b = rows_operand(w);
  m.b.transposed = true;
  m.c = rows_of(y);
  m.depth = conv.window();
  m.compute = conv.compute;
  run_with_windows(x, conv, m, &Matmul::a);
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
    Tensor dw = empty(w.get().shape(), DType::f32, dy.device());
    Matmul m;
    m.a = rows_operand(dy);
    m.a.transposed = true;
    m.c = rows_of(dw);
    m.depth = conv.pixels();
    m.compute = conv.compute;
    run_with_windows(x.get(), conv, m, &Matmul::b);
    return dw;
  }

  Tensor input_gradient(const Tensor& dy) const {
    const ConvGeometry& g = conv.g;
    if (g.stride == 1 && !conv.is_plain_product() && !conv.windows_in_memory) {
      Convolution back = conv;
      back.g = {g.batch,         g.out_height,   g.out_width, dy.size(-1), g.height,   g.width,
                g.kernel_height, g.kernel_width, 1,           -g.padding,  -g.dilation};
      Tensor dx = empty({back.pixels(), g.channels}, x.get().dtype(), dy.device());
      multiply_windows(dy, back, turned(), dx);
      return dx.reshape(conv.map_shape());
    }
    Tensor rows = empty({conv.pixels(), conv.window()}, x.get().dtype(), dy.device());
    Matmul m;
    m.a = rows_operand(dy);
    m.b = rows_operand(w.get());
    m.c = rows_of(rows);
    m.depth = dy.size(-1);
    m.compute = conv.compute;
    run_product(dy.device(), m);
    if (conv.is_plain_product()) return rows.reshape(conv.map_shape());
    Tensor dx = empty(conv.map_shape(), rows.dtype(), rows.device());
    run(current_stream(rows.device()), Col2Im{g, const_buffer_of(rows), buffer_of(dx)});
    return dx;
  }

  // (C, kh kw O): the weight of the convolution that takes dy back to dx.
  Tensor turned() const {
    const std::int64_t taps = conv.g.kernel_height * conv.g.kernel_width;
    const Tensor& weight = w.get();
    return dense(weight.reshape({weight.size(0), taps, conv.g.channels}).permute({2, 1, 0}))
        .reshape({conv.g.channels, taps * weight.size(0)});
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
  check_dtype(!bias.defined() || bias.dtype() == DType::f32, "conv2d", "bias must be f32", {{"bias", bias}});
  check(w.size(2) > 0 && w.size(3) > 0, "conv2d", "the kernel is empty", {{"w", w}});
  const std::int64_t rims = 2 * std::int64_t{o.padding};
  const auto extent = [&](std::int64_t size, std::int64_t kernel) { return (size + rims - o.dilation * (kernel - 1) - 1) / o.stride + 1; };
  const std::int64_t kh = w.size(2), kw = w.size(3), out = w.size(0) / o.groups;
  check(x.size(1) + rims >= o.dilation * (kh - 1) + 1 && x.size(2) + rims >= o.dilation * (kw - 1) + 1, "conv2d",
        "the kernel is larger than the padded picture", {{"x", x}, {"w", w}});
  Convolution conv;
  conv.g = {x.size(0), x.size(1), x.size(2), w.size(1), extent(x.size(1), kh), extent(x.size(2), kw), kh,
            kw,        o.stride,  o.padding, o.dilation};
  static_cast<void>(Shape{conv.g.batch, conv.g.out_height, conv.g.out_width, kh * kw * conv.g.channels}.count());  // or too large
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
