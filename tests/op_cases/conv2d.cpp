#include <cmath>

#include "tests/support/op_case.h"

#include "twinlens/core/ops.h"

namespace twinlens::test {
namespace {

std::int64_t extent(std::int64_t size, std::int64_t kernel, const ConvOptions& o) {
  return (size + 2 * o.padding - o.dilation * (kernel - 1) - 1) / o.stride + 1;
}

// Inputs x (B, H, W, C), w (O, C / groups, kh, kw), bias (O) where there is one. The textbook sum.
Array reference(const std::vector<Array>& in, const ConvOptions& o) {
  const Shape x = in[0].shape, w = in[1].shape;
  const std::int64_t oh = extent(x[1], w[2], o), ow = extent(x[2], w[3], o), out_per_group = w[0] / o.groups, window = w[2] * w[3];
  Array y({x[0], oh, ow, w[0]});
  std::vector<double> by_position(in[1].v.size());  // (kh kw, O, C / groups): read in order
  for (std::int64_t i = 0; i < w.count(); ++i) by_position[static_cast<std::size_t>(i % window * w[0] * w[1] + i / window)] = in[1][i];
  for (std::int64_t pixel = 0; pixel < x[0] * oh * ow; ++pixel) {
    const std::int64_t column = pixel % ow, row = pixel / ow % oh, b = pixel / ow / oh;
    for (std::int64_t k = 0; in.size() > 2 && k < w[0]; ++k) y[pixel * w[0] + k] = in[2][k];
    for (std::int64_t at = 0; at < window; ++at) {
      const std::int64_t h = row * o.stride - o.padding + at / w[3] * o.dilation;
      const std::int64_t v = column * o.stride - o.padding + at % w[3] * o.dilation;
      if (h < 0 || h >= x[1] || v < 0 || v >= x[2]) continue;
      for (std::int64_t k = 0; k < w[0]; ++k) {
        const std::int64_t first = ((b * x[1] + h) * x[2] + v) * x[3] + k / out_per_group * w[1];
        const double* weights = by_position.data() + (at * w[0] + k) * w[1];
        double sum = 0.0;
        for (std::int64_t c = 0; c < w[1]; ++c) sum += in[0][first + c] * weights[c];
        y[pixel * w[0] + k] += sum;
      }
    }
  }
  return y;
}

OpCase make(const Shape& x, const Shape& w, const ConvOptions& o = {}, bool bias = false) {
  OpCase c;
  c.name = to_string(x) + " " + to_string(w) + " stride " + std::to_string(o.stride) + " padding " + std::to_string(o.padding) +
           " dilation " + std::to_string(o.dilation) + " groups " + std::to_string(o.groups) + (bias ? " bias" : "");
  const double scale = 1.0 / std::sqrt(static_cast<double>(w[1] * w[2] * w[3]));
  c.inputs = {random_input(x, "x" + c.name), parameter_input(w, "w" + c.name, scale)};
  if (bias) c.inputs.push_back(parameter_input({w[0]}, "bias", 0.5));
  c.call = [=](const std::vector<Tensor>& in) { return conv2d(in[0], in[1], bias ? in[2] : Tensor{}, o); };
  c.reference = [=](const std::vector<Array>& in) { return reference(in, o); };
  return c;
}

ConvOptions options(int stride, int padding, int dilation = 1, int groups = 1) {
  ConvOptions o;
  o.stride = stride;
  o.padding = padding;
  o.dilation = dilation;
  o.groups = groups;
  return o;
}

OpCase bench_case(const std::string& name, const Shape& x, const Shape& w, const ConvOptions& o) {
  OpCase c = make(x, w, o);
  c.name = name;
  for (CaseInput& input : c.inputs) input.differentiable = false;  // differences of so large a reference would take minutes
  c.bench = true;
  const double pixels = static_cast<double>(x[0] * extent(x[1], w[2], o) * extent(x[2], w[3], o));
  c.flops = 2.0 * pixels * static_cast<double>(w.count());
  c.bytes = 4.0 * (static_cast<double>(x.count() + w.count()) + pixels * static_cast<double>(w[0]));
  return c;
}

void add_errors(OpCases& op) {
  const auto call = [](const Shape& x, const Shape& w, const ConvOptions& o) { conv2d(zeros(x), zeros(w), {}, o); };
  op.errors.push_back({"result in f16",
                       [] {
                         conv2d(zeros({1, 5, 5, 4}), zeros({2, 4, 3, 3}), {}, {.out = DType::f16});
                       },
                       {"conv2d", "f16 on CUDA"}});
  op.errors.push_back({"channels", [=] { call({1, 5, 5, 4}, {2, 3, 3, 3}, {}); }, {"conv2d", "1 groups", "[1,5,5,4]", "[2,3,3,3]"}});
  op.errors.push_back({"groups", [=] { call({1, 5, 5, 4}, {3, 2, 3, 3}, options(1, 0, 1, 2)); }, {"conv2d", "2 groups", "[3,2,3,3]"}});
  op.errors.push_back({"kernel",
                       [=] {
                         call({1, 4, 4, 1}, {1, 1, 3, 3}, options(1, 0, 2));
                       },
                       {"conv2d", "larger than the padded picture"}});
  op.errors.push_back({"stride 0", [=] { call({1, 4, 4, 1}, {1, 1, 3, 3}, options(0, 0)); }, {"conv2d", "must be positive"}});
  op.errors.push_back({"rank 3", [=] { call({4, 4, 1}, {1, 1, 3, 3}, {}); }, {"conv2d", "(B, H, W, C)", "[4,4,1]"}});
  op.errors.push_back({"integers", [] { conv2d(zeros({1, 4, 4, 1}, DType::i64), zeros({1, 1, 1, 1}), {}); }, {"conv2d", "i64"}});
  op.errors.push_back({"bias in bf16",
                       [] {
                         conv2d(zeros({1, 4, 4, 1}), zeros({2, 1, 1, 1}), zeros({2}, DType::bf16));
                       },
                       {"conv2d", "bias must be f32", "bf16"}});
  op.errors.push_back({"no kernel",
                       [] {
                         conv2d(zeros({1, 4, 4, 1}), zeros({2, 1, 0, 1}), {});
                       },
                       {"conv2d", "kernel is empty", "[2,1,0,1]"}});
  op.errors.push_back({"bias", [] { conv2d(zeros({1, 4, 4, 1}), zeros({2, 1, 1, 1}), zeros({3})); }, {"bias", "[3]"}});
}

}  // namespace

OpCases op_cases_conv2d() {
  OpCases op;
  op.cases.push_back(make({1, 1, 1, 1}, {1, 1, 1, 1}, {}, true));
  op.cases.push_back(make({0, 4, 4, 3}, {5, 3, 3, 3}, options(1, 1), true));
  op.cases.push_back(make({1, 4, 4, 0}, {8, 0, 3, 3}, options(1, 1), true));
  op.cases.push_back(make({1, 4, 4, 8}, {0, 8, 3, 3}, options(1, 1)));        // its dx: windows of maps without channels
  op.cases.push_back(make({2, 7, 5, 19}, {23, 19, 1, 1}, {}, true));          // the product alone
  op.cases.push_back(make({2, 7, 5, 6}, {9, 6, 1, 1}, options(2, 0)));        // 1 x 1 that leaves pixels out
  op.cases.push_back(make({1, 4, 3, 5}, {7, 5, 1, 1}, options(1, 1), true));  // 1 x 1 that sees padding
  op.cases.push_back(make({2, 7, 9, 5}, {6, 5, 3, 3}, options(1, 1)));
  op.cases.push_back(make({2, 8, 7, 17}, {33, 17, 3, 3}, options(2, 1), true));
  op.cases.push_back(make({1, 11, 12, 3}, {8, 3, 7, 7}, options(2, 3)));           // a ResNet's stem
  op.cases.push_back(make({1, 13, 11, 4}, {5, 4, 3, 3}, options(1, 2, 2), true));  // dilated
  op.cases.push_back(make({1, 13, 11, 2}, {3, 2, 2, 3}, options(3, 2, 3)));        // all at once, an oblong kernel
  op.cases.push_back(make({2, 6, 7, 12}, {9, 4, 3, 3}, options(1, 1, 1, 3), true));
  op.cases.push_back(make({1, 9, 8, 17}, {17, 1, 3, 3}, options(2, 1, 1, 17)));  // depthwise
  op.cases.push_back(make({1, 4, 6, 10}, {4, 5, 1, 1}, options(1, 0, 1, 2), true));
  op.cases.push_back(make({1, 8, 8, 3}, {16, 3, 4, 4}, options(4, 0)));          // patches
  op.cases.push_back(make({1, 5, 5, 64}, {37, 64, 3, 3}, options(1, 1), true));  // windows of more columns than are gathered at once
  op.cases.push_back(make({1, 7, 7, 64}, {19, 64, 3, 3}, options(2, 1)));
  // Channels in whole words, which CUDA reads in place in two bytes.
  op.cases.push_back(make({2, 6, 7, 16}, {24, 16, 3, 3}, options(1, 1), true));
  op.cases.push_back(make({1, 9, 8, 8}, {40, 8, 3, 3}, options(2, 1)));
  op.cases.push_back(make({1, 7, 6, 16}, {16, 8, 2, 3}, options(1, 3, 2, 2)));

  OpCase both_bf16 = make({2, 6, 5, 7}, {9, 7, 3, 3}, options(1, 1));
  both_bf16.name += " weight in bf16 too";
  both_bf16.inputs[1].parameter = false;
  op.cases.push_back(both_bf16);
  OpCase in_low = make({2, 6, 5, 7}, {9, 7, 3, 3}, options(1, 1), true);
  in_low.name += " f32 in bf16";
  in_low.call = [](const std::vector<Tensor>& in) {
    ConvOptions o = options(1, 1);
    o.compute = Compute::bf16;
    o.out = DType::f32;
    return conv2d(in[0], in[1], in[2], o);
  };
  in_low.tolerance = in_low.gradient_tolerance = 5e-3;  // two factors of 8 bits
  op.cases.push_back(in_low);

  op.cases.push_back(bench_case("RN50 layer1 3x3, one image [1,56,56,64]", {1, 56, 56, 64}, {64, 64, 3, 3}, options(1, 1)));
  op.cases.push_back(bench_case("RN50 layer4 1x1, one image [1,7,7,2048]", {1, 7, 7, 2048}, {512, 2048, 1, 1}, {}));
  add_errors(op);
  for (OpCase& c : op.cases) c.cuda = true;
  return op;
}

}  // namespace twinlens::test
