#pragma once
// Shared by the ops that are matrix products: tensors as operands, scratch. Private to core.

#include "twinlens/core/tensor.h"
#include "twinlens/kernels/matmul.h"

namespace twinlens {

// The last two dimensions of x as an operand, the leading ones as its batch. Keeps alive what it points to: x itself, or a dense copy
// when the layout is neither rows nor transposed rows at one distance from item to item.
struct Operand {
  Tensor keep;
  MatmulOperand matrix;

  explicit Operand(const Tensor& x, bool transposed = false);
  MatmulOperand flipped() const {
    MatmulOperand m = matrix;
    m.transposed = !m.transposed;
    return m;
  }
};

// What a product of these operands is computed in: operands of two bytes imply their type.
Compute compute_of(Compute asked, DType a, DType b);
// Throws DTypeError for what the device cannot compute in.
void check_compute(const char* op, Compute compute, Device device);
// The type that operands are rounded to.
DType dtype_of(Compute compute);

// Runs the product with scratch of its own.
void run_product(Device device, Matmul args);

}  // namespace twinlens
