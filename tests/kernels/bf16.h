#pragma once

#include <bit>
#include <cstdint>

#include "twinlens/kernels/dtype.h"

namespace twinlens {

inline float widened(bf16 x) { return std::bit_cast<float>(std::uint32_t{x.bits} << 16); }

}  // namespace twinlens
