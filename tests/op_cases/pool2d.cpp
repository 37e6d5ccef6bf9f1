#include <cmath>
#include <limits>

#include "tests/support/op_case.h"

#include "twinlens/core/ops.h"

namespace twinlens::test {
namespace {

struct Window {
  int kernel, stride, padding;
};

// visit(output index, input index) in row-major window order.
template <class F>
Shape for_windows(const Shape& in, const Window& w, F visit) {
  const std::int64_t oh = (in[1] + 2 * w.padding - w.kernel) / w.stride + 1, ow = (in[2] + 2 * w.padding - w.kernel) / w.stride + 1;
  const Shape out{in[0], oh, ow, in[3]};
  const std::int64_t count = out.count();
  for (std::int64_t at = 0; at < count; ++at) {
    const std::int64_t c = at % in[3], ox = at / in[3] % ow, oy = at / in[3] / ow % oh, b = at / in[3] / ow / oh;
    for (std::int64_t y = oy * w.stride - w.padding; y < oy * w.stride - w.padding + w.kernel; ++y) {
      for (std::int64_t x = ox * w.stride - w.padding; x < ox * w.stride - w.padding + w.kernel; ++x) {
        if (y >= 0 && y < in[1] && x >= 0 && x < in[2]) visit(at, ((b * in[1] + y) * in[2] + x) * in[3] + c);
      }
    }
  }
  return out;
}

Array average(const Array& x, const Window& w) {
  Array y(for_windows(x.shape, w, [](std::int64_t, std::int64_t) {}));
  for_windows(x.shape, w, [&](std::int64_t out, std::int64_t in) { y[out] += x[in] / (w.kernel * w.kernel); });
  return y;
}

Array maximum(const Array& x, const Window& w) {
  Array y(for_windows(x.shape, w, [](std::int64_t, std::int64_t) {}), -std::numeric_limits<double>::infinity());
  for_windows(x.shape, w, [&](std::int64_t out, std::int64_t in) {
    if (x[in] > y[out] || std::isnan(x[in])) y[out] = x[in];
  });
  return y;
}

OpCase make(const Shape& shape, const Window& w, bool is_max) {
  OpCase c;
  c.cuda = true;
  c.name = (is_max ? "max " : "avg ") + to_string(shape) + " kernel " + std::to_string(w.kernel) + " stride " + std::to_string(w.stride) +
           " padding " + std::to_string(w.padding);
  c.inputs = {random_input(shape, c.name)};
  c.call = [=](const std::vector<Tensor>& x) {
    return is_max ? max_pool2d(x[0], w.kernel, w.stride, w.padding) : avg_pool2d(x[0], w.kernel, w.stride);
  };
  c.reference = [=](const std::vector<Array>& x) { return is_max ? maximum(x[0], w) : average(x[0], w); };
  // bf16 inputs of one window are often equal: then the maximum has no derivative.
  if (is_max) c.bf16_tolerance = 0.0;
  return c;
}

// The gradient of equal elements goes to the first of them; NaN and a window of -inf come through.
OpCase special_values() {
  OpCase c;
  c.cuda = true;
  c.name = "max of NaN and -inf";
  constexpr double inf = std::numeric_limits<double>::infinity();
  c.inputs = {random_input({1, 2, 6, 1}, c.name)};
  c.inputs[0].values.v = {1, std::nan(""), -inf, -inf, 3, inf, 5, 2, -inf, -inf, -4, 1};
  c.inputs[0].differentiable = false;
  c.call = [](const std::vector<Tensor>& x) { return max_pool2d(x[0], 2, 2); };
  c.reference = [](const std::vector<Array>& x) { return maximum(x[0], {2, 2, 0}); };
  return c;
}

OpCase ties() {
  OpCase c;
  c.cuda = true;
  c.name = "max of equals";
  c.inputs = {random_input({1, 2, 4, 17}, c.name)};
  for (double& x : c.inputs[0].values.v) x = 1.0;
  c.call = [](const std::vector<Tensor>& x) { return max_pool2d(x[0], 2, 2); };
  // The op's subgradient: all of it to the first element of the window.
  c.reference = [](const std::vector<Array>& x) {
    Array y({1, 1, 2, 17});
    for (std::int64_t i = 0; i < 34; ++i) y[i] = x[0][i / 17 * 34 + i % 17];
    return y;
  };
  return c;
}

}  // namespace

OpCases op_cases_pool2d() {
  OpCases op;
  op.cases = {make({0, 4, 4, 3}, {2, 2, 0}, false),
              make({1, 1, 1, 1}, {1, 1, 0}, false),
              make({2, 7, 5, 19}, {2, 2, 0}, false),
              make({1, 9, 8, 33}, {3, 2, 0}, false),
              make({1, 8, 9, 5}, {2, 3, 0}, false),
              make({1, 9, 8, 16}, {3, 2, 0}, false),  // pixels of whole words on a card
              make({0, 4, 4, 3}, {2, 2, 0}, true),
              make({1, 1, 1, 1}, {1, 1, 0}, true),
              make({2, 7, 5, 19}, {2, 2, 0}, true),
              make({1, 9, 8, 33}, {3, 2, 1}, true),
              make({1, 8, 9, 5}, {2, 3, 0}, true),
              make({1, 9, 8, 16}, {3, 2, 1}, true),
              special_values(),
              ties()};
  for (const bool is_max : {false, true}) {
    OpCase bench = make({1, 56, 56, 256}, {2, 2, 0}, is_max);
    bench.name = std::string(is_max ? "max" : "avg") + " RN50 layer2, batch 1 [1,56,56,256]";
    bench.bench = true;
    bench.bytes = 1.0 * 56 * 56 * 256 * (is_max ? 6 : 5);
    op.cases.push_back(bench);
  }
  op.errors.push_back({"window larger than map",
                       [] {
                         avg_pool2d(zeros({1, 2, 8, 4}), 3, 1);
                       },
                       {"avg_pool2d", "larger than the map: kernel 3", "[1,2,8,4]"}});
  op.errors.push_back({"stride 0", [] { max_pool2d(zeros({1, 8, 8, 4}), 2, 0); }, {"max_pool2d", "stride >= 1", "stride 0"}});
  op.errors.push_back({"padding of a whole window", [] { max_pool2d(zeros({1, 8, 8, 4}), 2, 2, 2); }, {"max_pool2d", "padding 2"}});
  op.errors.push_back({"rank 3", [] { avg_pool2d(zeros({8, 8, 4}), 2, 2); }, {"avg_pool2d", "(B, H, W, C)", "[8,8,4]"}});
  return op;
}

}  // namespace twinlens::test
