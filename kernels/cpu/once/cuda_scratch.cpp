// What ops ask of CUDA launchers before they call them. Host arithmetic, so every build has it.

#include "kernels/cuda/window_plan.h"

namespace twinlens {

std::int64_t cuda_scratch_bytes(const Matmul& m) { return cuda::matmul_plan(m).bytes; }

bool cuda_reads_windows(const Matmul& m) { return cuda::reads_windows(m); }

}  // namespace twinlens
