// Convolution, pooling and upsampling against PyTorch in float64. The fixtures are NCHW, the ops NHWC. Not expressible so far, and
// therefore not here: conv2d_uneven (another stride or padding per axis), conv_transpose2d, avg_pool2d_k3 (padded average).

#include <catch2/catch.hpp>
#include <functional>

#include "tests/support/golden.h"

#include "twinlens/core/autograd.h"
#include "twinlens/core/ops.h"

namespace twinlens::test {
namespace {

const Golden& layers() {
  static const Golden golden("layers");
  return golden;
}

Tensor leaf(const std::string& name) {
  if (!layers().has(name)) return {};
  return layers().tensor(name).set_requires_grad(true);
}

using Op = std::function<Tensor(const Tensor& x, const Tensor& weight, const Tensor& bias)>;

// y = op(x), and the gradients of x and of what parameters the case has.
void check_op(const std::string& name, const Op& op) {
  INFO("case " << name);
  const Tensor x = leaf(name + ".in.x"), weight = leaf(name + ".param.weight"), bias = leaf(name + ".param.bias");
  const Tensor y = nhwc_to_nchw(op(nchw_to_nhwc(x), weight, bias));
  check_golden(layers(), y, name + ".out.y", name + ".err.out.y");
  backward(y, layers().tensor(name + ".grad_out.y"));
  check_golden(layers(), x.grad(), name + ".grad_in.x", name + ".err.grad_in.x");
  if (weight.defined()) check_golden(layers(), weight.grad(), name + ".grad_param.weight", name + ".err.grad_param.weight");
  if (bias.defined()) check_golden(layers(), bias.grad(), name + ".grad_param.bias", name + ".err.grad_param.bias");
}

int same_on_both_axes(const nlohmann::json& pair) {
  REQUIRE(pair[0] == pair[1]);
  return pair[0].get<int>();
}

TEST_CASE("conv2d") {
  const nlohmann::json attributes = golden_json("layers");
  for (const char* name :
       {"conv2d", "conv2d_no_bias", "conv2d_1x1", "conv2d_patch", "conv2d_groups", "conv2d_depthwise", "conv2d_dilation"}) {
    const nlohmann::json& a = attributes[name];
    ConvOptions options;
    options.stride = same_on_both_axes(a["stride"]);
    options.padding = same_on_both_axes(a["padding"]);
    options.dilation = same_on_both_axes(a["dilation"]);
    options.groups = a["groups"].get<int>();
    check_op(name, [&](const Tensor& x, const Tensor& weight, const Tensor& bias) { return conv2d(x, weight, bias, options); });
  }
}

TEST_CASE("pooling and upsampling") {
  const nlohmann::json attributes = golden_json("layers");
  for (const char* name : {"max_pool2d", "max_pool2d_k3"}) {
    const nlohmann::json& a = attributes[name];
    const int kernel = a["kernel_size"].get<int>(), stride = a["stride"].get<int>(), padding = a["padding"].get<int>();
    check_op(name, [&](const Tensor& x, const Tensor&, const Tensor&) { return max_pool2d(x, kernel, stride, padding); });
  }
  check_op("avg_pool2d", [](const Tensor& x, const Tensor&, const Tensor&) { return avg_pool2d(x, 2, 2); });
  check_op("upsample_nearest", [](const Tensor& x, const Tensor&, const Tensor&) { return upsample_nearest(x, 2); });
}

}  // namespace
}  // namespace twinlens::test
