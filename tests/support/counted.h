#pragma once
// Tensors as a function of their name, bit for bit those of tests/golden/counted.py, so that a fixture of a full-size model needs no
// weights.

#include <cstdint>
#include <string>

#include "twinlens/core/tensor.h"

namespace twinlens::test {

// splitmix64 of the name's FNV-1a hash and an index.
class Counted {
 public:
  explicit Counted(const std::string& name);
  std::uint64_t bits(std::uint64_t i) const {
    std::uint64_t z = hash_ + (i + 1) * 0x9E3779B97F4A7C15U;
    z = (z ^ (z >> 30U)) * 0xBF58476D1CE4E5B9U;
    z = (z ^ (z >> 27U)) * 0x94D049BB133111EBU;
    return z ^ (z >> 31U);
  }

 private:
  std::uint64_t hash_ = 0xCBF29CE484222325U;
};

// f32 of shift + scale * unit, where unit is nearly normal and never beyond 3.47.
Tensor counted_normal(const std::string& name, const Shape& shape, double scale = 1.0, double shift = 0.0);
// A parameter or running statistic at the scale of a trained model, by its name in the checkpoint.
Tensor counted_weight(const std::string& name, const Shape& shape);
// The sum of x with signs that the name gives, in double.
double counted_signs_dot(const std::string& name, const Tensor& x);

}  // namespace twinlens::test
