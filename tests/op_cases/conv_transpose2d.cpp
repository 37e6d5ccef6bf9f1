#include <cmath>

#include "tests/support/op_case.h"

#include "twinlens/core/autograd.h"
#include "twinlens/core/ops.h"

namespace twinlens::test {
namespace {

std::int64_t extent(std::int64_t size, std::int64_t kernel, const ConvTransposeOptions& o) {
  return (size - 1) * o.stride - 2 * o.padding + o.dilation * (kernel - 1) + o.output_padding + 1;
}

// Inputs x (B, H, W, C), w (C, O / groups, kh, kw), bias (O) where there is one: every pixel adds its share where the kernel reaches.
Array reference(const std::vector<Array>& in, const ConvTransposeOptions& o) {
  const Shape x = in[0].shape, w = in[1].shape;
  const std::int64_t oh = extent(x[1], w[2], o), ow = extent(x[2], w[3], o), out = w[1] * o.groups, in_per_group = x[3] / o.groups;
  Array y({x[0], oh, ow, out});
  for (std::int64_t i = 0; in.size() > 2 && i < y.shape.count(); ++i) y[i] = in[2][i % out];
  for (std::int64_t at = 0; at < x.count(); ++at) {
    const std::int64_t c = at % x[3], column = at / x[3] % x[2], row = at / x[3] / x[2] % x[1], b = at / x[3] / x[2] / x[1];
    for (std::int64_t i = 0; i < w[2]; ++i) {
      for (std::int64_t j = 0; j < w[3]; ++j) {
        const std::int64_t h = row * o.stride - o.padding + i * o.dilation, v = column * o.stride - o.padding + j * o.dilation;
        if (h < 0 || h >= oh || v < 0 || v >= ow) continue;
        for (std::int64_t k = 0; k < w[1]; ++k) {
          y[((b * oh + h) * ow + v) * out + c / in_per_group * w[1] + k] += in[0][at] * in[1][((c * w[1] + k) * w[2] + i) * w[3] + j];
        }
      }
    }
  }
  return y;
}

OpCase make(const Shape& x, const Shape& w, const ConvTransposeOptions& o = {}, bool bias = false) {
  OpCase c;
  c.name = to_string(x) + " " + to_string(w) + " stride " + std::to_string(o.stride) + " padding " + std::to_string(o.padding) + " + " +
           std::to_string(o.output_padding) + " dilation " + std::to_string(o.dilation) + " groups " + std::to_string(o.groups) +
           (bias ? " bias" : "");
  c.inputs = {random_input(x, "x" + c.name), parameter_input(w, "w" + c.name, 1.0 / std::sqrt(static_cast<double>(w[0] / o.groups)))};
  if (bias) c.inputs.push_back(parameter_input({w[1] * o.groups}, "bias", 0.5));
  c.call = [=](const std::vector<Tensor>& in) { return conv_transpose2d(in[0], in[1], bias ? in[2] : Tensor{}, o); };
  c.reference = [=](const std::vector<Array>& in) { return reference(in, o); };
  return c;
}

// What the op is by definition: conv2d's gradient with respect to its input. x stands for the gradient of conv2d's result.
OpCase through_conv2d() {
  ConvTransposeOptions o;
  o.stride = 2;
  o.padding = 1;
  o.output_padding = 1;
  OpCase c = make({2, 4, 3, 7}, {7, 5, 3, 3}, o);
  c.name = "gradient of conv2d";
  for (CaseInput& input : c.inputs) input.differentiable = false;
  c.call = [](const std::vector<Tensor>& in) {
    Tensor picture = zeros({2, 8, 6, 5}, in[0].dtype(), in[0].device());
    picture.set_requires_grad(true);
    ConvOptions back;
    back.stride = 2;
    back.padding = 1;
    backward(conv2d(picture, in[1], {}, back), dense(in[0]));
    return picture.grad();
  };
  return c;
}

ConvTransposeOptions options(int stride, int padding, int output_padding, int dilation = 1, int groups = 1) {
  ConvTransposeOptions o;
  o.stride = stride;
  o.padding = padding;
  o.output_padding = output_padding;
  o.dilation = dilation;
  o.groups = groups;
  return o;
}

void add_errors(OpCases& op) {
  const auto call = [](const Shape& x, const Shape& w, const ConvTransposeOptions& o) { conv_transpose2d(zeros(x), zeros(w), {}, o); };
  op.errors.push_back({"channels", [=] { call({1, 5, 5, 4}, {3, 2, 3, 3}, {}); }, {"conv_transpose2d", "[1,5,5,4]", "[3,2,3,3]"}});
  op.errors.push_back({"groups", [=] { call({1, 5, 5, 3}, {3, 2, 3, 3}, options(1, 0, 0, 1, 2)); }, {"conv_transpose2d", "2 groups"}});
  op.errors.push_back({"output padding",
                       [=] {
                         call({1, 5, 5, 3}, {3, 2, 3, 3}, options(2, 0, 2));
                       },
                       {"conv_transpose2d", "output padding 2"}});
  op.errors.push_back({"padding", [=] { call({1, 1, 1, 3}, {3, 2, 1, 1}, options(1, 1, 0)); }, {"conv_transpose2d", "whole picture"}});
  op.errors.push_back({"rank 3", [=] { call({5, 5, 3}, {3, 2, 3, 3}, {}); }, {"conv_transpose2d", "(B, H, W, C)", "[5,5,3]"}});
  op.errors.push_back({"stride 0", [=] { call({1, 5, 5, 3}, {3, 2, 3, 3}, options(0, 0, 0)); }, {"conv_transpose2d", "positive"}});
  op.errors.push_back({"bias",
                       [] {
                         conv_transpose2d(zeros({1, 4, 4, 1}), zeros({1, 2, 1, 1}), zeros({3}));
                       },
                       {"conv_transpose2d", "bias must match", "[3]"}});
}

}  // namespace

OpCases op_cases_conv_transpose2d() {
  OpCases op;
  op.cases.push_back(make({1, 1, 1, 1}, {1, 1, 1, 1}, {}, true));
  op.cases.push_back(make({0, 4, 4, 3}, {3, 5, 3, 3}, options(2, 1, 1), true));
  op.cases.push_back(make({2, 7, 5, 19}, {19, 23, 1, 1}, {}, true));
  op.cases.push_back(make({2, 5, 4, 6}, {6, 9, 4, 4}, options(2, 1, 0), true));  // a decoder's doubling
  op.cases.push_back(make({1, 4, 5, 5}, {5, 17, 3, 3}, options(2, 1, 1), true));
  op.cases.push_back(make({1, 4, 3, 3}, {3, 2, 2, 3}, options(3, 1, 2, 2)));  // an oblong kernel, dilated
  op.cases.push_back(make({1, 4, 3, 3}, {3, 2, 3, 3}, options(1, 0, 1, 3)));  // output padding beyond the stride
  op.cases.push_back(make({1, 5, 4, 6}, {6, 3, 3, 3}, options(2, 1, 1, 1, 3), true));
  op.cases.push_back(make({1, 4, 4, 7}, {7, 1, 3, 3}, options(2, 1, 0, 1, 7)));  // depthwise
  op.cases.push_back(through_conv2d());
  add_errors(op);
  for (OpCase& c : op.cases) c.cuda = true;
  return op;
}

}  // namespace twinlens::test
