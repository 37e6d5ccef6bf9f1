#pragma once
// In the library itself this declaration is a line of twinlens/core/ops.h.

#include "twinlens/core/tensor.h"

namespace twinlens {

// x / (1 + |x|). f32 or bf16 (on CUDA f16 too); any layout.
Tensor softsign(const Tensor& x);

}  // namespace twinlens
