#include <cmath>

#include "tests/support/op_case.h"

#include "twinlens/core/ops.h"

namespace twinlens::test {
namespace {

struct Setup {
  bool training = true, relu = false, residual = false;
  double eps = 1e-5, momentum = 0.1;
};

struct Statistics {
  Array mean, variance;  // biased
};

Statistics statistics(const Array& x) {
  const std::int64_t c = x.cols(), n = x.rows();
  Statistics s{Array({c}), Array({c})};
  for (std::int64_t i = 0; i < n * c; ++i) s.mean[i % c] += x[i] / static_cast<double>(n);
  for (std::int64_t i = 0; i < n * c; ++i) s.variance[i % c] += (x[i] - s.mean[i % c]) * (x[i] - s.mean[i % c]) / static_cast<double>(n);
  return s;
}

// Inputs x, gamma, beta, running mean, running variance, then the residual where there is one.
Array reference(const std::vector<Array>& in, const Setup& s) {
  const Array& x = in[0];
  const std::int64_t c = x.cols();
  const Statistics used = s.training ? statistics(x) : Statistics{in[3], in[4]};
  Array y(x.shape);
  for (std::int64_t i = 0; i < x.shape.count(); ++i) {
    y[i] = (x[i] - used.mean[i % c]) / std::sqrt(used.variance[i % c] + s.eps) * in[1][i % c] + in[2][i % c];
    if (s.residual) y[i] += in[5][i];
    if (s.relu) y[i] = std::max(y[i], 0.0);
  }
  return y;
}

BatchNormOptions options_of(const Setup& s) {
  BatchNormOptions o;
  o.training = s.training;
  o.relu = s.relu;
  o.eps = s.eps;
  o.momentum = s.momentum;
  return o;
}

OpCase make(const Shape& shape, const Setup& s, double shift = 0.0) {
  OpCase c;
  c.name = to_string(shape) + (s.training ? " training" : " inference") + (s.residual ? " residual" : "") + (s.relu ? " relu" : "") +
           (shift != 0.0 ? " shifted" : "");
  const Shape channels{shape[-1]};
  CaseInput mean = parameter_input(channels, "mean", 0.5), variance = parameter_input(channels, "variance");
  for (double& v : variance.values.v) v = static_cast<double>(static_cast<float>(0.5 + std::abs(v)));
  mean.differentiable = variance.differentiable = false;
  c.inputs = {random_input(shape, c.name, 1.0, shift), parameter_input(channels, "gamma", 0.5, 1.0), parameter_input(channels, "beta", 0.3),
              mean, variance};
  if (s.residual) c.inputs.push_back(random_input(shape, "residual" + c.name));
  c.call = [s](const std::vector<Tensor>& in) {
    BatchNormOptions o = options_of(s);
    if (s.residual) o.residual = in[5];
    Tensor running_mean = in[3].clone(), running_var = in[4].clone();
    return batch_norm(in[0], in[1], in[2], running_mean, running_var, o);
  };
  c.reference = [s](const std::vector<Array>& in) { return reference(in, s); };
  return c;
}

// What training leaves in the running statistics: the mean, then the variance.
OpCase running(const Shape& shape, double momentum, bool update) {
  Setup s;
  s.momentum = momentum;
  OpCase c = make(shape, s, 2.0);
  c.name += " running" + std::string(update ? "" : " kept");
  for (CaseInput& input : c.inputs) input.differentiable = false;
  c.call = [s, update](const std::vector<Tensor>& in) {
    BatchNormOptions o = options_of(s);
    o.update_running = update;
    Tensor running_mean = in[3].clone(), running_var = in[4].clone();
    batch_norm(in[0], in[1], in[2], running_mean, running_var, o);
    return concat({running_mean, running_var}, 0);
  };
  c.reference = [momentum, update](const std::vector<Array>& in) {
    const Statistics batch = statistics(in[0]);
    const std::int64_t channels = in[0].cols();
    const auto n = static_cast<double>(in[0].rows());
    Array y({2 * channels});
    for (std::int64_t i = 0; i < channels; ++i) {
      y[i] = update ? (1.0 - momentum) * in[3][i] + momentum * batch.mean[i] : in[3][i];
      y[channels + i] = update ? (1.0 - momentum) * in[4][i] + momentum * batch.variance[i] * n / (n - 1.0) : in[4][i];
    }
    return y;
  };
  return c;
}

// A stage of RN50 is too large for differences.
OpCase bench_case() {
  Setup s;
  s.relu = true;
  OpCase c = make({4, 56, 56, 64}, s);
  c.name = "RN50 layer1, batch 4, training relu [4,56,56,64]";
  for (CaseInput& input : c.inputs) input.differentiable = false;
  c.bench = true;
  c.flops = 4.0 * 56 * 56 * 64 * 10;
  c.bytes = 4.0 * 56 * 56 * 64 * 16;
  return c;
}

void add_errors(OpCases& op) {
  const auto call = [](const Shape& x, std::int64_t channels, const BatchNormOptions& o) {
    Tensor mean = zeros({channels}), variance = zeros({channels});
    batch_norm(zeros(x), zeros({channels}), zeros({channels}), mean, variance, o);
  };
  BatchNormOptions training, residual, integers;
  integers.out = DType::i64;
  training.training = true;
  residual.residual = zeros({4, 7});
  op.errors.push_back({"gamma of another width", [=] { call({4, 8}, 7, {}); }, {"batch_norm", "gamma must match", "[4,8]", "[7]"}});
  op.errors.push_back({"one row", [=] { call({1, 8}, 8, training); }, {"batch_norm", "more than one value per channel", "[1,8]"}});
  op.errors.push_back({"residual", [=] { call({4, 8}, 8, residual); }, {"batch_norm", "residual must be like x", "[4,7]"}});
  op.errors.push_back({"result in integers", [=] { call({4, 8}, 8, integers); }, {"batch_norm", "must be f32 or bf16", "i64"}});
  op.errors.push_back({"a vector", [=] { call({8}, 8, {}); }, {"batch_norm", "two dimensions", "[8]"}});
}

}  // namespace

OpCases op_cases_batch_norm() {
  OpCases op;
  Setup plain, inference, fused, fused_inference;
  inference.training = fused_inference.training = false;
  fused.relu = fused.residual = fused_inference.relu = fused_inference.residual = true;
  Setup relu = plain, residual = plain;
  relu.relu = residual.residual = true;
  for (const Shape& shape :
       {Shape{5, 1}, Shape{2, 3, 5, 7}, Shape{65, 33}, Shape{3, 7, 7, 16}, Shape{131, 67}, Shape{192, 3}, Shape{9, 1027}}) {
    op.cases.push_back(make(shape, plain));
    op.cases.push_back(make(shape, fused));
    op.cases.push_back(make(shape, inference));
  }
  op.cases.push_back(make({2, 5, 3, 19}, relu));
  op.cases.push_back(make({2, 5, 3, 19}, residual));
  op.cases.push_back(make({2, 5, 3, 19}, fused_inference));
  op.cases.push_back(make({130, 1}, fused));
  op.cases.push_back(make({0, 8}, inference));
  op.cases.push_back(make({1, 8}, inference));
  op.cases.push_back(make({70, 9}, plain, 30.0));
  op.cases.back().tolerance = 2e-5;  // the mean is 30 standard deviations: f32 inputs of x - mean lose 5 bits
  op.cases.back().gradient_tolerance = 2e-5;
  op.cases.back().bf16_tolerance = 0.0;
  op.cases.push_back(running({65, 9}, 0.1, true));
  op.cases.push_back(running({3, 2, 2, 17}, 0.25, true));
  op.cases.push_back(running({6, 5}, 0.1, false));
  op.cases.push_back(bench_case());
  add_errors(op);
  for (OpCase& c : op.cases) c.cuda = true;
  return op;
}

}  // namespace twinlens::test
