#pragma once
// How a product is laid out for cuBLASLt: which operands are converted first, where sums go, what is left to the kernel behind it. Plain
// host arithmetic, tested in tests/kernels/cuda_geometry.cpp; nothing here includes a CUDA header.
//
// Sums go straight to c, or to `pre` where that is wanted and has c's type: in f32, or in the type of the operands. A c of two bytes is
// then rounded before the activation, as in an unfused program, and so is the bias where cuBLASLt adds it. Other combinations of types are
// summed in f32 scratch; so is what a bias moves over the kink of relu: near it, the bias's rounding would change the sign of the sum, and
// with it all of the gradient. (Without a bias the sum's sign outlives its rounding.)

#include <cstdint>

#include "kernels/cuda/geometry.h"

#include "twinlens/kernels/matmul.h"

namespace twinlens::cuda {

constexpr std::int64_t kScratchAlignment = 256;
constexpr std::int64_t aligned_bytes(std::int64_t bytes) { return ceil_div(bytes, kScratchAlignment) * kScratchAlignment; }

// The matrix as it lies in memory.
struct StoredMatrix {
  std::int64_t rows = 0, cols = 0, items = 1;
};

struct MatmulPlan {
  DType type = DType::f32;  // of the operands of the product
  StoredMatrix a, b;
  bool convert_a = false, convert_b = false;  // into scratch, dense rows of converted_stride() elements
  bool sums_in_scratch = false;
  bool sums_in_pre = false;
  DType sums_type = DType::f32;
  std::int64_t a_at = 0, b_at = 0, bias_at = 0, sums_at = 0, bytes = 0;  // places in the scratch
};

constexpr DType operand_type(Compute compute) {
  return compute == Compute::bf16 ? DType::bf16 : compute == Compute::f16 ? DType::f16 : DType::f32;
}

constexpr StoredMatrix stored(const MatmulOperand& m, std::int64_t rows, std::int64_t cols, std::int64_t batch) {
  return {m.transposed ? cols : rows, m.transposed ? rows : cols, m.batch_stride == 0 ? 1 : batch};
}

// Rows of a converted operand start at 16 bytes, which the fast algorithms want.
constexpr std::int64_t converted_stride(const StoredMatrix& m) { return ceil_div(m.cols, 8) * 8; }

// cuBLASLt cannot repeat a row, as a broadcast operand does. Windows are read as they are, or not at all (window_plan.h).
constexpr bool must_convert(const MatmulOperand& m, const StoredMatrix& s, DType type) {
  if (m.is_windows()) return false;
  return m.dtype != type || (s.rows > 1 && m.stride < s.cols);
}

constexpr MatmulPlan matmul_plan(const Matmul& m) {
  MatmulPlan p{};
  p.type = operand_type(m.compute);
  p.a = stored(m.a, m.c.rows, m.depth, m.batch);
  p.b = stored(m.b, m.depth, m.c.cols, m.batch);
  p.convert_a = must_convert(m.a, p.a, p.type);
  p.convert_b = must_convert(m.b, p.b, p.type);
  const bool over_a_kink = m.activation == Activation::relu && m.bias != nullptr;
  p.sums_in_scratch = m.c.dtype != DType::f32 && (m.c.dtype != p.type || over_a_kink);
  p.sums_in_pre = !p.sums_in_scratch && m.pre.data != nullptr && m.pre.dtype == m.c.dtype;
  p.sums_type = p.sums_in_scratch ? DType::f32 : m.c.dtype;
  std::int64_t at = 0;
  const auto take = [&](std::int64_t bytes) {
    const std::int64_t here = at;
    at += aligned_bytes(bytes);
    return here;
  };
  const auto converted_bytes = [&](const StoredMatrix& s) { return s.items * s.rows * converted_stride(s) * size_of(p.type); };
  p.a_at = p.convert_a ? take(converted_bytes(p.a)) : 0;
  p.b_at = p.convert_b ? take(converted_bytes(p.b)) : 0;
  p.bias_at = m.bias != nullptr ? take(m.c.cols * size_of(DType::f32)) : 0;
  p.sums_at = p.sums_in_scratch ? take(m.batch * m.c.rows * m.c.cols * size_of(DType::f32)) : 0;
  p.bytes = at;
  return p;
}

}  // namespace twinlens::cuda
