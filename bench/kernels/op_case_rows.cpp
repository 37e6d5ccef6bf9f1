#include <memory>

#include "bench/kernels/rows.h"
#include "tests/op_cases/all.h"

#include "twinlens/core/autograd.h"

namespace twinlens::bench {
namespace {

// An op case with its inputs made when the row first runs: listing rows costs nothing.
struct Prepared {
  test::OpCase op_case;
  DType dtype = DType::f32;
  bool gradient = false;
  std::vector<Tensor> inputs;
  Tensor dy;

  bool wants_gradient(const test::CaseInput& input) const { return gradient && input.differentiable && input.dtype == DType::f32; }

  void prepare() {
    for (const test::CaseInput& input : op_case.inputs) {
      Tensor x = test::tensor_of(input, input.parameter ? DType::f32 : dtype);
      x.set_requires_grad(input.parameter && wants_gradient(input));
      inputs.push_back(x);
    }
  }

  void call() {
    if (inputs.empty()) prepare();
    std::vector<Tensor> given = inputs;
    for (std::size_t i = 0; i < given.size(); ++i) {
      if (!op_case.inputs[i].parameter && wants_gradient(op_case.inputs[i])) given[i] = inside_a_model(inputs[i]);
    }
    const Tensor y = op_case.call(given);
    if (!gradient || !y.requires_grad()) return;
    if (!dy.defined()) dy = full(y.shape(), 0.5, y.dtype());
    backward(y, dy);
    for (Tensor& x : inputs) x.set_grad({});
  }
};

bool has_gradient(const test::OpCase& c) {
  for (const test::CaseInput& input : c.inputs) {
    if (input.differentiable && input.dtype == DType::f32) return true;
  }
  return false;
}

void add(const char* op, const test::OpCase& c, DType dtype, bool gradient) {
  auto prepared = std::make_shared<Prepared>();
  prepared->op_case = c;
  prepared->dtype = dtype;
  prepared->gradient = gradient;
  const double halves = dtype == DType::bf16 ? 0.5 : 1.0;
  // Of a backward pass nobody has said how much it computes: such rows have times only.
  const Work work = gradient ? Work{} : Work{c.flops, c.bytes * halves, dtype == DType::bf16};
  const std::string name =
      std::string(op) + "/" + c.name + (dtype == DType::bf16 ? "/bf16" : "/f32") + (gradient ? "/forward+backward" : "/forward");
  add_row(name, work, [prepared] { prepared->call(); });
}

}  // namespace

void add_op_case_rows() {
  for (const test::NamedOpCases& op : test::kAllOpCases) {
    for (const test::OpCase& c : op.make().cases) {
      if (!c.bench) continue;
      for (const DType dtype : {DType::f32, DType::bf16}) {
        if (dtype == DType::bf16 && c.bf16_tolerance == 0.0) continue;
        add(op.name, c, dtype, false);
        if (has_gradient(c)) add(op.name, c, dtype, true);
      }
    }
  }
}

}  // namespace twinlens::bench
