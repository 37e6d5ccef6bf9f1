// Sizes of scratch that CUDA launchers want. Host arithmetic, so every build has it.

#include "kernels/cuda/matmul_plan.h"

namespace twinlens {

std::int64_t cuda_scratch_bytes(const Matmul& m) { return cuda::matmul_plan(m).bytes; }

}  // namespace twinlens
