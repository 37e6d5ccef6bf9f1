#pragma once
// cuBLASLt for one product: C++ values in, one call out. Algorithms are chosen once per shape by cuBLASLt's heuristic (no timing, so the
// choice is the same in every run) among those whose sums have a fixed order, and remembered per device. Thread-safe.

#include <cstdint>
#include <cuda_runtime.h>

#include "twinlens/kernels/dtype.h"

namespace twinlens::cuda {

// A row-major matrix as it lies in memory; read as its transpose when `transposed`.
struct BlasMatrix {
  const void* data = nullptr;
  std::int64_t rows = 0, cols = 0, stride = 0, batch_stride = 0;  // stored
  bool transposed = false;
};

enum class BlasEpilogue : std::uint8_t { none, bias, gelu, gelu_bias, gelu_aux, gelu_aux_bias };

// d (rows, cols) = epilogue(alpha a b + beta c), all row-major; c has the type of d.
struct BlasProduct {
  DType type = DType::f32;  // of a and b
  bool tf32 = false;
  BlasMatrix a, b, c, d;
  DType d_type = DType::f32;
  std::int64_t batch = 1;
  float alpha = 1.0F, beta = 0.0F;
  BlasEpilogue epilogue = BlasEpilogue::none;
  const void* bias = nullptr;  // (cols) of d's type
  void* aux = nullptr;         // (rows, cols) of d's type: the argument of the gelu
  std::int64_t aux_stride = 0;
};

// False when cuBLASLt has no algorithm for this product, in which case nothing was done. Throws DeviceError when the call fails.
bool blas_multiply(cudaStream_t stream, int device, const BlasProduct& p, void* workspace, std::size_t workspace_bytes);

}  // namespace twinlens::cuda
