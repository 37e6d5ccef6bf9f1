#include "kernels/cpu/gemm/plan.h"

namespace twinlens {

std::int64_t scratch_bytes(const Matmul& m) {
  const gemm::ScratchPlan p = gemm::scratch_plan(m);
  return p.size() * static_cast<std::int64_t>(sizeof(float));
}

}  // namespace twinlens
