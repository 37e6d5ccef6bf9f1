#pragma once

#include <cmath>

#include "twinlens/core/ops.h"

namespace twinlens::test {

// ||c - a b|| / ||a b|| in double precision, over every `step`-th row; f32.
inline double product_error(const Tensor& c, const Tensor& a, const Tensor& b, std::int64_t step = 1) {
  const Tensor x = dense(a), y = dense(b);
  const std::int64_t rows = a.size(0), depth = a.size(1), cols = b.size(1);
  double difference = 0.0, size = 0.0;
  for (std::int64_t i = 0; i < rows; i += step) {
    for (std::int64_t j = 0; j < cols; ++j) {
      double sum = 0.0;
      for (std::int64_t k = 0; k < depth; ++k)
        sum += static_cast<double>(x.data<float>()[i * depth + k]) * static_cast<double>(y.data<float>()[k * cols + j]);
      difference += std::pow(static_cast<double>(c.data<float>()[i * cols + j]) - sum, 2);
      size += sum * sum;
    }
  }
  return std::sqrt(difference / size);
}

}  // namespace twinlens::test
