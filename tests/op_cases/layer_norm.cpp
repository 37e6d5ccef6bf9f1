#include <cmath>

#include "tests/support/op_case.h"

#include "twinlens/core/ops.h"

namespace twinlens::test {
namespace {

Array reference(const std::vector<Array>& in, double eps) {
  const Array& x = in[0];
  Array y(x.shape);
  const std::int64_t c = x.cols();
  for (std::int64_t r = 0; r < x.rows(); ++r) {
    double mean = 0.0, variance = 0.0;
    for (std::int64_t i = 0; i < c; ++i) mean += x[r * c + i] / static_cast<double>(c);
    for (std::int64_t i = 0; i < c; ++i) variance += (x[r * c + i] - mean) * (x[r * c + i] - mean) / static_cast<double>(c);
    for (std::int64_t i = 0; i < c; ++i) y[r * c + i] = (x[r * c + i] - mean) / std::sqrt(variance + eps) * in[1][i] + in[2][i];
  }
  return y;
}

OpCase make(const Shape& shape, double shift = 0.0) {
  OpCase c;
  c.name = to_string(shape) + (shift != 0.0 ? " shifted" : "");
  const Shape columns{shape[-1]};
  c.inputs = {random_input(shape, c.name, 1.0, shift), parameter_input(columns, "gamma", 0.5, 1.0), parameter_input(columns, "beta", 0.3)};
  c.call = [](const std::vector<Tensor>& in) { return layer_norm(in[0], in[1], in[2]); };
  c.reference = [](const std::vector<Array>& in) { return reference(in, 1e-5); };
  c.cuda = true;
  return c;
}

// One of gamma and beta, or neither.
OpCase make_without(bool gamma, bool beta) {
  OpCase c = make({7, 37});
  c.name += std::string(gamma ? "" : " without gamma") + (beta ? "" : " without beta");
  const Array ones({37}, 1.0), zero({37});
  if (!beta) c.inputs.erase(c.inputs.begin() + 2);
  if (!gamma) c.inputs.erase(c.inputs.begin() + 1);
  c.call = [gamma, beta](const std::vector<Tensor>& in) {
    return layer_norm(in[0], gamma ? in[1] : Tensor{}, beta ? in[gamma ? 2 : 1] : Tensor{});
  };
  c.reference = [gamma, beta, ones, zero](const std::vector<Array>& in) {
    return reference({in[0], gamma ? in[1] : ones, beta ? in[gamma ? 2 : 1] : zero}, 1e-5);
  };
  return c;
}

}  // namespace

OpCases op_cases_layer_norm() {
  OpCases op;
  for (const Shape& shape : {Shape{1, 1}, Shape{0, 8}, Shape{40, 0}, Shape{3, 7}, Shape{2, 5, 192}, Shape{67, 65}, Shape{33, 768},
                             Shape{5, 640}, Shape{3, 1280}, Shape{2, 1792}, Shape{2, 2560}})
    op.cases.push_back(make(shape));
  op.cases[0].absolute = 1e-4;  // one column: y = beta and dx = 0 exactly in the formula, rstd = 316 amplifies rounding
  op.cases.push_back(make({4, 257}, 30.0));
  op.cases.back().tolerance = 2e-5;  // the mean is 30 standard deviations: f32 inputs of x - mean lose 5 bits
  op.cases.back().gradient_tolerance = 2e-5;
  op.cases.back().bf16_tolerance = 0.0;
  for (const DType out : {DType::f32, DType::bf16}) {
    OpCase c = make({9, 193});
    c.name += std::string(" to ") + name_of(out);
    c.call = [out](const std::vector<Tensor>& in) { return layer_norm(in[0], in[1], in[2], 1e-5, out); };
    if (out == DType::bf16) c.tolerance = c.gradient_tolerance = 4e-3;  // half a unit in 8 bits
    op.cases.push_back(c);
  }
  for (const bool gamma : {false, true}) {
    for (const bool beta : {false, true}) {
      if (!gamma || !beta) op.cases.push_back(make_without(gamma, beta));
    }
  }
  OpCase bench = make({1600, 768});
  bench.name = "ViT-B/32 image rows, batch 32 [1600,768]";
  bench.bench = true;
  bench.flops = 1600.0 * 768 * 8;
  bench.bytes = 1600.0 * 768 * 8;
  op.cases.push_back(bench);

  op.errors.push_back({"gamma of another width",
                       [] {
                         layer_norm(zeros({4, 8}), zeros({7}), zeros({8}));
                       },
                       {"layer_norm", "gamma must match the last dim of x", "[4,8]", "[7]"}});
  op.errors.push_back({"result in f16",
                       [] {
                         layer_norm(zeros({4, 8}), {}, {}, 1e-5, DType::f16);
                       },
                       {"layer_norm", "f16 on CUDA", "[4,8]"}});
  op.errors.push_back({"integer x", [] { layer_norm(zeros({4, 8}, DType::i64), {}, {}); }, {"layer_norm", "i64"}});
  return op;
}

}  // namespace twinlens::test
