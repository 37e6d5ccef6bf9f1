#pragma once
// An op case says what an op is: inputs, the call, a double-precision reference, tolerances, errors. From it come, with no further code:
// value against the reference, gradient against central differences of the reference, every instruction set, bf16, non-contiguous inputs,
// guard zones around everything allocated, equal bits from run to run and for 1 and 2 threads, CUDA against the reference, benchmark rows.

#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "twinlens/core/tensor.h"

namespace twinlens::test {

// Row-major values in double precision: what references compute with.
struct Array {
  Shape shape;
  std::vector<double> v;

  Array() = default;
  explicit Array(const Shape& s, double value = 0.0) : shape(s), v(static_cast<std::size_t>(s.count()), value) {}
  double& operator[](std::int64_t i) { return v[static_cast<std::size_t>(i)]; }
  double operator[](std::int64_t i) const { return v[static_cast<std::size_t>(i)]; }
  std::int64_t rows() const { return shape.rank() == 0 || cols() == 0 ? (shape.rank() == 0 ? 1 : 0) : shape.count() / cols(); }
  std::int64_t cols() const { return shape.rank() == 0 ? 1 : shape[-1]; }
};

struct CaseInput {
  Array values;
  DType dtype = DType::f32;    // f32 inputs are also tried as bf16 where the case allows
  bool differentiable = true;  // f32 only
  bool parameter = false;      // stays f32 (and dense) when the others become bf16 or non-contiguous
};

// Deterministic values: normal numbers from a name and a shape.
CaseInput random_input(const Shape& shape, const std::string& seed, double scale = 1.0, double shift = 0.0);
CaseInput parameter_input(const Shape& shape, const std::string& seed, double scale = 1.0, double shift = 0.0);
CaseInput int_input(const Shape& shape, const std::vector<std::int64_t>& values);
CaseInput bool_input(const Shape& shape, const std::vector<std::int64_t>& values);

struct OpCase {
  std::string name;  // "[32,768] eps=1e-5"
  std::vector<CaseInput> inputs;
  std::function<Tensor(const std::vector<Tensor>&)> call;
  std::function<Array(const std::vector<Array>&)> reference;
  double tolerance = 2e-6;           // relative 2-norm of the value, f32
  double gradient_tolerance = 5e-6;  // relative 2-norm of each gradient, f32
  double bf16_tolerance = 1e-2;      // both, bf16 inputs (rounded inputs are what the reference sees); 0: not tried
  double absolute = 1e-9;            // differences (2-norm per sqrt(element)) below this pass: for results that are exactly 0
  bool bench = false;                // gives a benchmark row
  double flops = 0.0, bytes = 0.0;   // of one forward call, for the benchmark counters
  bool cuda = false;                 // has a CUDA mirror
  // Whether it is tried in f16 on a card, which it is where inputs, result and gradients suit f16. False for a case whose numbers in
  // between, which nobody sees from outside, lie below the range of f16 (6e-8) or above (65504).
  bool f16 = true;
};

struct ErrorCase {
  std::string name;
  std::function<void()> call;
  std::vector<std::string> message_has;  // e.g. the op and both shapes
};

struct OpCases {
  std::vector<OpCase> cases;
  std::vector<ErrorCase> errors;  // at least one
};

// Runs everything above as Catch2 assertions.
void run_op_cases(const OpCases& op);

// The inputs of a case as tensors.
Tensor tensor_of(const CaseInput& input, DType float_dtype = DType::f32, Device device = kCpu);
double relative_error(const std::vector<float>& got, const std::vector<double>& want, double absolute);

}  // namespace twinlens::test
