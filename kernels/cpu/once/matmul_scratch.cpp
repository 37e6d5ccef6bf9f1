#include <atomic>
#include <cstdlib>
#include <string_view>

#include "kernels/cpu/gemm/plan.h"

#include "twinlens/kernels/error.h"

namespace twinlens {
namespace {

std::atomic<bool>& split_allowed() {
  static std::atomic<bool> allowed{[] {
    const char* wish = std::getenv("TWINLENS_SPLIT_F32");
    const std::string_view text = wish == nullptr ? "" : wish;
    if (text.empty() || text == "1") return true;
    if (text == "0") return false;
    throw ConfigError("TWINLENS_SPLIT_F32: '" + std::string(text) + "' is neither 0 nor 1; environment; use 0 for multiply-adds in f32");
  }()};
  return allowed;
}

// As the kernel of the active set takes them (kernels/cpu/matmul.cpp).
gemm::Form form_of(const Matmul& m) {
  if (multiplies_bf16_pairs(active_isa()) && m.compute == Compute::bf16) return gemm::Form::pairs;
  return splits_f32(m) ? gemm::Form::thirds : gemm::Form::floats;
}

}  // namespace

void set_split_f32(bool allowed) { split_allowed().store(allowed, std::memory_order_relaxed); }

bool splits_f32(const Matmul& m) {
  return active_isa() == Isa::avx512amx && m.compute != Compute::bf16 && split_allowed().load(std::memory_order_relaxed);
}

std::int64_t scratch_bytes(const Matmul& m) {
  const gemm::ScratchPlan p = gemm::scratch_plan(m, form_of(m), active_isa() == Isa::avx512amx);
  return p.size() * static_cast<std::int64_t>(sizeof(float));
}

}  // namespace twinlens
