#include "twinlens/kernels/norm2.h"

#include "core/src/ops/elements.h"

#include "twinlens/core/check.h"
#include "twinlens/core/ops.h"

namespace twinlens {
namespace {

struct Result {
  Tensor root, nonfinite;
};

Result sum_of_squares(const char* op, const Tensor& x) {
  check_compute_dtype(op, {{"x", x}});
  const Tensor source = dense(x);
  const std::int64_t blocks = (x.count() + SumOfSquares::kBlock - 1) / SumOfSquares::kBlock;
  const Tensor scratch = empty({2 * blocks}, DType::i64, x.device());  // doubles
  Result r{empty({}, DType::f32, x.device()), empty({}, DType::i64, x.device())};
  run(current_stream(x.device()), SumOfSquares{const_buffer_of(source), static_cast<double*>(scratch.raw()), floats(r.root),
                                               static_cast<std::int64_t*>(r.nonfinite.raw())});
  return r;
}

}  // namespace

Tensor norm2(const Tensor& x) { return sum_of_squares("norm2", x).root; }
Tensor count_nonfinite(const Tensor& x) { return sum_of_squares("count_nonfinite", x).nonfinite; }

}  // namespace twinlens
