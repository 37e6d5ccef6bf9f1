#pragma once
// The functions that a product's epilogue can apply. Formulas: core/ops.h and kernels/cpu/vec/functions.h.

#include <cstdint>

namespace twinlens {

enum class Activation : std::uint8_t { none, relu, gelu, gelu_tanh, quick_gelu, silu };

}  // namespace twinlens
