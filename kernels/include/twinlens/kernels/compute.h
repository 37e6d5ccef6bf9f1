#pragma once
// What a product is computed in: how its operands are rounded before they are multiplied. Sums are f32 in all of them.

#include <cstdint>

namespace twinlens {

// fp32 rounds nothing; tf32 rounds operands to 11 bits inside the product (CUDA only, the CPU computes fp32); bf16 and f16 round operands
// to these types first (f16 on CUDA only).
enum class Compute : std::uint8_t { fp32, tf32, bf16, f16 };

}  // namespace twinlens
