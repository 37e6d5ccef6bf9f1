#pragma once
// What kernels are given: the elements of a tensor, wherever they lie. The caller has checked the type.

#include "twinlens/core/tensor.h"

namespace twinlens {

inline float* floats(const Tensor& x) { return static_cast<float*>(x.raw()); }
inline const std::int64_t* ints(const Tensor& x) { return static_cast<const std::int64_t*>(x.raw()); }

}  // namespace twinlens
