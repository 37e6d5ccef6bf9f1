#include "twinlens/nn/parameter.h"

#include "twinlens/core/autograd.h"

namespace twinlens {

Parameter::Parameter(const Shape& shape) : value(zeros(shape)) { value.set_requires_grad(true); }

Tensor Parameter::rounded_operand(Compute compute) const {
  if (compute == Compute::f16) return value.to(DType::f16);
  if (compute != Compute::bf16 || shadow.defined()) return operand(compute);
  Tensor rounded = value.detach().to(DType::bf16);
  share_gradient(rounded, value);
  return rounded;
}

}  // namespace twinlens
