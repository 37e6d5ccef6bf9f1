#include "core/src/ops/product.h"

#include "twinlens/core/autograd.h"

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

void run_product(Device device, Matmul args) {
  Tensor scratch;
  if (!device.is_cuda()) {
    scratch = empty({scratch_bytes(args)}, DType::u8, device);
    args.scratch = scratch.raw();
  }
  run(current_stream(device), args);
}

}  // namespace twinlens
