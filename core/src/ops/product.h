#pragma once
// What matmul, linear and conv2d share: operands of the Matmul kernel from tensors, and the call with its scratch.

#include "twinlens/core/ops.h"
#include "twinlens/kernels/matmul.h"

namespace twinlens {

// The last two dimensions of x as an operand; `transposed` reads them swapped. x must have dense rows. Batch stride 0.
MatmulOperand operand_of(const Tensor& x, bool transposed);

// Products in bf16 when asked for or when an operand is bf16 already. tf32 exists on CUDA only.
bool computes_bf16(Compute compute, const Tensor& a, const Tensor& b);

// Runs the product with scratch of its own.
void run_product(Matmul args, Device device);

}  // namespace twinlens
