#pragma once
// Conversions of bf16, to the nearest, even at ties.

#include <bit>
#include <cstdint>

struct __nv_bfloat16_raw {
  std::uint16_t x;
};
struct __nv_bfloat16 {
  std::uint16_t bits;
  explicit __nv_bfloat16(__nv_bfloat16_raw raw) : bits(raw.x) {}
  explicit operator __nv_bfloat16_raw() const { return {bits}; }
};

inline float __bfloat162float(__nv_bfloat16 x) { return std::bit_cast<float>(static_cast<std::uint32_t>(x.bits) << 16); }
inline __nv_bfloat16 __float2bfloat16_rn(float x) {
  const auto bits = std::bit_cast<std::uint32_t>(x);
  if (x != x) return __nv_bfloat16(__nv_bfloat16_raw{0x7FFF});
  return __nv_bfloat16(__nv_bfloat16_raw{static_cast<std::uint16_t>((bits + 0x7FFF + (bits >> 16 & 1)) >> 16)});
}
