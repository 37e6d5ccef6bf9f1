// conv2d: windows as rows (im2col) times the weight, which is read as (O, kh kw C). A 1 x 1 convolution of stride 1 is the product alone.
// The windows are made again in backward rather than kept. Groups are convolutions of channel slices.

#include "twinlens/core/autograd.h"
#include "twinlens/core/check.h"
#include "twinlens/core/ops.h"
#include "twinlens/kernels/im2col.h"

namespace twinlens {
namespace {

bool is_plain_product(const ConvGeometry& g) { return g.kernel_height == 1 && g.kernel_width == 1 && g.stride == 1 && g.padding == 0; }

Tensor windows_of(const Tensor& x, const ConvGeometry& g) {
  const std::int64_t rows = g.batch * g.out_height * g.out_width, columns = g.kernel_height * g.kernel_width * g.channels;
  Tensor y = empty({rows, columns}, x.dtype(), x.device());
  run(current_stream(x.device()), Im2Col{g, const_buffer_of(x), buffer_of(y)});
  return y;
}

// Rows of windows as a recorded op: the product behind it needs no code of its own for gradients.
struct WindowsNode final : Node {
  ConvGeometry g{};
  Shape shape;
  const char* name() const override { return "im2col"; }
  void backward(const Tensor& dy_in, Gradients& grads) override {
    const Tensor dy = dense(dy_in);
    Tensor dx = empty(shape, dy.dtype(), dy.device());
    run(current_stream(dy.device()), Col2Im{g, const_buffer_of(dy), buffer_of(dx)});
    grads.add(0, std::move(dx));
  }
  void release() override {}
};

Tensor windows(const Tensor& x, const ConvGeometry& g) {
  const Tensor source = dense(x);
  if (is_plain_product(g)) return source.reshape({-1, g.channels});
  Tensor y = windows_of(source, g);
  if (!needs_grad({&x})) return y;
  auto node = std::make_shared<WindowsNode>();
  node->g = g;
  node->shape = x.shape();
  return record(std::move(y), std::move(node), {&x});
}

}  // namespace

Tensor conv2d(const Tensor& x, const Tensor& w, const Tensor& bias, const ConvOptions& o) {
  check(x.rank() == 4 && w.rank() == 4, "conv2d", "x must be (B, H, W, C) and w (O, C / groups, kh, kw)", {{"x", x}, {"w", w}});
  check_compute_dtype("conv2d", {{"x", x}, {"w", w}});
  check(o.stride > 0 && o.dilation > 0 && o.padding >= 0 && o.groups > 0, "conv2d",
        "stride, dilation and groups must be positive, padding not negative", {{"x", x}});
  check(x.size(3) == w.size(1) * o.groups && w.size(0) % o.groups == 0, "conv2d",
        "channels do not fit the weight in " + std::to_string(o.groups) + " groups", {{"x", x}, {"w", w}});
  const auto extent = [&](std::int64_t size, std::int64_t kernel) {
    return (size + 2 * o.padding - o.dilation * (kernel - 1) - 1) / o.stride + 1;
  };
  const std::int64_t kh = w.size(2), kw = w.size(3), out = w.size(0) / o.groups;
  check(x.size(1) + 2 * o.padding >= o.dilation * (kh - 1) + 1 && x.size(2) + 2 * o.padding >= o.dilation * (kw - 1) + 1, "conv2d",
        "the kernel is larger than the padded picture", {{"x", x}, {"w", w}});
  const ConvGeometry g{x.size(0), x.size(1), x.size(2), w.size(1), extent(x.size(1), kh), extent(x.size(2), kw), kh,
                       kw,        o.stride,  o.padding, o.dilation};
  LinearOptions product;
  product.compute = o.compute;
  product.out = o.out.value_or(x.dtype());
  std::vector<Tensor> parts;
  for (int group = 0; group < o.groups; ++group) {
    const Tensor in = o.groups == 1 ? x : x.slice(3, group * g.channels, (group + 1) * g.channels);
    const Tensor weight = o.groups == 1 ? w : w.slice(0, group * out, (group + 1) * out);
    const Tensor part_bias = !bias.defined() || o.groups == 1 ? bias : bias.slice(0, group * out, (group + 1) * out);
    const Tensor matrix = dense(weight.permute({0, 2, 3, 1})).reshape({out, -1});  // (O, kh kw C)
    parts.push_back(linear(windows(in, g), matrix, part_bias, product));
  }
  const Tensor y = parts.size() == 1 ? parts[0] : concat(parts, 1);
  return y.reshape({g.batch, g.out_height, g.out_width, w.size(0)});
}

}  // namespace twinlens
