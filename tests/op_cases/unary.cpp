#include <cmath>

#include "tests/support/op_case.h"

#include "twinlens/core/ops.h"

namespace twinlens::test {
namespace {

struct Function {
  const char* name;
  Tensor (*call)(const Tensor&);
  double (*reference)(double);
  double low, high;  // what it is asked at the ends of its range
  bool positive = false;
};

double normal_distribution(double x) { return 0.5 * std::erfc(-x * std::sqrt(0.5)); }
double logistic(double x) { return 1.0 / (1.0 + std::exp(-x)); }
double tanh_gelu(double x) { return 0.5 * x * (1.0 + std::tanh(std::sqrt(2.0 / M_PI) * (x + 0.044715 * x * x * x))); }

const Function kFunctions[] = {
    {"neg", neg, [](double x) { return -x; }, -3e38, 3e38},
    {"abs", abs, [](double x) { return std::abs(x); }, -3e38, 3e38},
    {"exp", exp, [](double x) { return std::exp(x); }, -80, 30},
    {"log", log, [](double x) { return std::log(x); }, 1e-2, 1e30, true},
    {"sqrt", sqrt, [](double x) { return std::sqrt(x); }, 1e-2, 1e30, true},
    {"square", square, [](double x) { return x * x; }, -1e18, 1e18},
    {"tanh", tanh, [](double x) { return std::tanh(x); }, -100, 100},
    {"sigmoid", sigmoid, logistic, -100, 100},
    {"log_sigmoid", log_sigmoid, [](double x) { return x < 0 ? x - std::log1p(std::exp(x)) : -std::log1p(std::exp(-x)); }, -1e30, 1e30},
    {"silu", silu, [](double x) { return x * logistic(x); }, -1e30, 1e30},
    {"relu", relu, [](double x) { return x > 0 ? x : 0.0; }, -3e38, 3e38},
    {"gelu", gelu, [](double x) { return x * normal_distribution(x); }, -1e30, 1e30},
    {"gelu_tanh", gelu_tanh, tanh_gelu, -1e30, 1e30},
    {"quick_gelu", quick_gelu, [](double x) { return x * logistic(1.702 * x); }, -1e30, 1e30},
    {"clamp", [](const Tensor& x) { return clamp(x, -0.5, 1.25); }, [](double x) { return std::min(std::max(x, -0.5), 1.25); }, -3e38,
     3e38},
};

OpCase make(const Function& f, const Shape& shape) {
  OpCase c;
  c.cuda = true;
  c.name = std::string(f.name) + " " + to_string(shape);
  c.inputs = {random_input(shape, c.name, 2.0)};
  if (f.positive) {
    for (double& x : c.inputs[0].values.v) x = static_cast<double>(static_cast<float>(std::abs(x) + 0.1));
  }
  c.call = [call = f.call](const std::vector<Tensor>& in) { return call(in[0]); };
  c.reference = [reference = f.reference](const std::vector<Array>& in) {
    Array y(in[0].shape);
    for (std::size_t i = 0; i < y.v.size(); ++i) y.v[i] = reference(in[0].v[i]);
    return y;
  };
  return c;
}

// One huge value would hide the others in a 2-norm: each end of the range is a case of its own.
OpCase at(const Function& f, double x) {
  OpCase c = make(f, {1});
  c.name = std::string(f.name) + " at " + std::to_string(x);
  c.inputs[0].values.v = {static_cast<double>(static_cast<float>(x))};
  c.bf16_tolerance = 0.0;
  return c;
}

}  // namespace

OpCases op_cases_unary() {
  OpCases op;
  for (const Function& f : kFunctions) {
    for (const Shape& shape : {Shape{0, 3}, Shape{}, Shape{3, 7}, Shape{2, 5, 257}}) op.cases.push_back(make(f, shape));
    op.cases.push_back(at(f, f.low));
    op.cases.push_back(at(f, f.high));
  }
  for (const Function& f : kFunctions) {
    if (std::string(f.name) != "gelu" && std::string(f.name) != "quick_gelu") continue;
    OpCase bench = make(f, {400, 3072});
    bench.name = std::string(f.name) + " MLP of ViT-B/32, 8 images [400,3072]";
    bench.bench = true;
    bench.flops = 400.0 * 3072 * 20;
    bench.bytes = 400.0 * 3072 * 8;
    op.cases.push_back(bench);
  }
  op.errors.push_back({"integer x", [] { gelu(zeros({4, 8}, DType::i64)); }, {"gelu", "must be f32 or bf16", "[4,8] i64"}});
  op.errors.push_back({"integer x", [] { neg(zeros({4, 8}, DType::i64)); }, {"neg", "[4,8] i64"}});
  op.errors.push_back({"empty range", [] { clamp(zeros({4, 8}), 1.0, 0.0); }, {"clamp", "low must not exceed high", "[4,8]"}});
  return op;
}

}  // namespace twinlens::test
