#include "core/src/ops/product.h"

#include <string>

#include "twinlens/core/autograd.h"
#include "twinlens/kernels/error.h"

namespace twinlens {
namespace {

// One distance between neighbouring items over all leading dimensions, if there is one.
bool one_batch_stride(const Tensor& x, std::int64_t& stride) {
  stride = 0;
  std::int64_t items = 1;
  for (int d = x.rank() - 3; d >= 0; --d) {
    if (x.size(d) == 1) continue;
    if (items == 1) {
      stride = x.strides()[d];
    } else if (x.strides()[d] != stride * items) {
      return false;
    }
    items *= x.size(d);
  }
  return true;
}

MatmulOperand matrix_of(const Tensor& x, std::int64_t stride, bool stored_transposed, std::int64_t batch_stride) {
  return {x.raw(), x.dtype(), stride, stored_transposed, batch_stride};
}

}  // namespace

Operand::Operand(const Tensor& x, bool transposed) : keep(x) {
  std::int64_t batch_stride = 0;
  const bool batched = one_batch_stride(x, batch_stride);
  const std::int64_t row = x.strides()[-2], column = x.strides()[-1];
  if (batched && (column == 1 || x.size(-1) == 1)) {
    matrix = matrix_of(x, row, transposed, batch_stride);
  } else if (batched && row == 1) {
    matrix = matrix_of(x, column, !transposed, batch_stride);
  } else {
    const NoGrad guard;
    keep = dense(x);
    one_batch_stride(keep, batch_stride);
    matrix = matrix_of(keep, keep.size(-1), transposed, batch_stride);
  }
}

Compute compute_of(Compute asked, DType a, DType b) {
  if (asked == Compute::bf16 || asked == Compute::f16) return asked;
  if (a == DType::bf16 || b == DType::bf16) return Compute::bf16;
  return a == DType::f16 || b == DType::f16 ? Compute::f16 : asked;
}

void check_compute(const char* op, Compute compute, Device device) {
  if (compute == Compute::f16 && !device.is_cuda())
    throw DTypeError(std::string(op) + ": products in f16 are CUDA's; device cpu; use Compute::bf16");
}

DType dtype_of(Compute compute) { return compute == Compute::bf16 ? DType::bf16 : compute == Compute::f16 ? DType::f16 : DType::f32; }

void run_product(Device device, Matmul args) {
  // Two blocks: the workspace has one size, so the same cached block serves all products of a step.
  Tensor workspace;
  const Tensor scratch = empty({device.is_cuda() ? cuda_scratch_bytes(args) : scratch_bytes(args)}, DType::u8, device);
  args.scratch = scratch.raw();
  if (device.is_cuda()) {
    workspace = empty({kMatmulWorkspace}, DType::u8, device);
    args.workspace = workspace.raw();
  }
  run(current_stream(device), args);
}

}  // namespace twinlens
