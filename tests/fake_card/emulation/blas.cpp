// In the place of kernels/cuda/blas.cpp: what cuBLASLt gives, by the definition.

#include "kernels/cuda/blas.h"

#include <algorithm>
#include <cmath>
#include <vector>

#include "kernels/cuda/device/any.cuh"

namespace twinlens::cuda {
namespace {

float load(const void* data, DType type, std::int64_t at) {
  float x[1];
  load_any(data, type, at, 1, false, x);
  return x[0];
}

void store(float value, void* data, DType type, std::int64_t at) {
  const float x[1] = {value};
  store_any(x, data, type, at, 1, false);
}

// 10 bits of fraction, ties away from zero.
float to_tf32(float x) {
  const unsigned bits = __float_as_uint(x);
  return std::isfinite(x) ? __uint_as_float((bits + 0x1000) & ~0x1FFFU) : x;
}

// One item as it is multiplied: transposed where that is asked for, of the product's precision.
std::vector<float> operand(const BlasMatrix& m, const BlasProduct& p, std::int64_t item) {
  std::vector<float> out(static_cast<std::size_t>(m.rows * m.cols));
  for (std::int64_t i = 0; i < m.rows; ++i) {
    for (std::int64_t j = 0; j < m.cols; ++j) {
      const float x = load(m.data, p.type, item * m.batch_stride + i * m.stride + j);
      out[static_cast<std::size_t>(m.transposed ? j * m.rows + i : i * m.cols + j)] = p.tf32 ? to_tf32(x) : x;
    }
  }
  return out;
}

bool has_bias(BlasEpilogue e) { return e == BlasEpilogue::bias || e == BlasEpilogue::gelu_bias || e == BlasEpilogue::gelu_aux_bias; }
bool has_gelu(BlasEpilogue e) { return e != BlasEpilogue::none && e != BlasEpilogue::bias; }

float gelu_tanh(float x) { return 0.5F * x * (1.0F + std::tanh(0.79788456080286536F * (x + 0.044715F * x * x * x))); }

}  // namespace

bool blas_multiply(cudaStream_t, int, const BlasProduct& p, void*, std::size_t) {
  const std::int64_t depth = p.a.transposed ? p.a.rows : p.a.cols;
  std::vector<double> sums(static_cast<std::size_t>(p.d.cols));
  for (std::int64_t item = 0; item < p.batch; ++item) {
    const std::vector<float> a = operand(p.a, p, item), b = operand(p.b, p, item);
    for (std::int64_t i = 0; i < p.d.rows; ++i) {
      std::fill(sums.begin(), sums.end(), 0.0);
      for (std::int64_t k = 0; k < depth; ++k) {
        const auto x = static_cast<double>(a[static_cast<std::size_t>(i * depth + k)]);
        const float* y = b.data() + k * p.d.cols;
        for (std::size_t j = 0; j < sums.size(); ++j) sums[j] += x * static_cast<double>(y[j]);
      }
      for (std::int64_t j = 0; j < p.d.cols; ++j) {
        float x = p.alpha * static_cast<float>(sums[static_cast<std::size_t>(j)]);
        if (p.beta != 0.0F) x += p.beta * load(p.c.data, p.d_type, item * p.c.batch_stride + i * p.c.stride + j);
        if (has_bias(p.epilogue)) x += load(p.bias, p.d_type, j);
        if (p.aux != nullptr) store(x, p.aux, p.d_type, i * p.aux_stride + j);
        if (has_gelu(p.epilogue)) x = gelu_tanh(x);
        store(x, const_cast<void*>(p.d.data), p.d_type, item * p.d.batch_stride + i * p.d.stride + j);
      }
    }
  }
  return true;
}

}  // namespace twinlens::cuda
