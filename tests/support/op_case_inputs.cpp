// Inputs of op cases; apart from the checks, so that the benchmarks have them without a test framework.
#include <random>
#include <stdexcept>

#include "tests/support/op_case.h"

namespace twinlens::test {

CaseInput random_input(const Shape& shape, const std::string& seed, double scale, double shift) {
  CaseInput input;
  input.values = Array(shape);
  std::seed_seq sequence(seed.begin(), seed.end());
  std::mt19937_64 engine(sequence);
  std::normal_distribution<double> normal;
  // Values are exactly representable in f32, so the op and the reference see the same numbers.
  for (double& x : input.values.v) x = static_cast<double>(static_cast<float>(scale * normal(engine) + shift));
  return input;
}

CaseInput parameter_input(const Shape& shape, const std::string& seed, double scale, double shift) {
  CaseInput input = random_input(shape, seed, scale, shift);
  input.parameter = true;
  return input;
}

CaseInput int_input(const Shape& shape, const std::vector<std::int64_t>& values) {
  CaseInput input;
  input.values = Array(shape);
  if (values.size() != input.values.v.size()) throw std::invalid_argument("int_input: one value an element");
  for (std::size_t i = 0; i < values.size(); ++i) input.values.v[i] = static_cast<double>(values[i]);
  input.dtype = DType::i64;
  input.differentiable = false;
  return input;
}

CaseInput bool_input(const Shape& shape, const std::vector<std::int64_t>& values) {
  CaseInput input = int_input(shape, values);
  input.dtype = DType::boolean;
  return input;
}

Tensor tensor_of(const CaseInput& input, DType float_dtype, Device device) {
  if (input.dtype == DType::i64) {  // sample ids do not fit into a float
    return from_vector(std::vector<std::int64_t>(input.values.v.begin(), input.values.v.end()), input.values.shape).to(device);
  }
  const Tensor x = from_vector(std::vector<float>(input.values.v.begin(), input.values.v.end()), input.values.shape);
  const DType dtype = input.dtype == DType::f32 && !input.parameter ? float_dtype : input.dtype;
  return x.to(dtype).to(device);
}

}  // namespace twinlens::test
