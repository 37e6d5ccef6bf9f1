#pragma once
// Conversions of f16, to the nearest, even at ties.

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstdint>

struct __half_raw {
  std::uint16_t x;
};
struct __half {
  std::uint16_t bits;
  explicit __half(__half_raw raw) : bits(raw.x) {}
  explicit operator __half_raw() const { return {bits}; }
};

// (The bits of a number, moved to their places in a float, are that number times 2^-112.)
inline float __half2float(__half x) {
  const std::uint32_t size = x.bits & 0x7FFFU, sign = (x.bits & 0x8000U) << 16;
  if (size >= 0x7C00) return std::bit_cast<float>(sign | 0x7F800000U | (size & 1023) << 13);
  return std::bit_cast<float>(sign | std::bit_cast<std::uint32_t>(std::bit_cast<float>(size << 13) * 0x1p112F));
}

inline __half __float2half_rn(float x) {
  const unsigned sign = std::signbit(x) ? 0x8000 : 0;
  const auto half = [](unsigned bits) { return __half(__half_raw{static_cast<std::uint16_t>(bits)}); };
  const double size = std::fabs(static_cast<double>(x));
  if (std::isnan(x)) return half(0x7FFF);
  if (size >= 65520.0) return half(sign | 0x7C00);  // would round to 2^16
  int exponent = 0;
  static_cast<void>(std::frexp(size, &exponent));
  exponent = size == 0.0 ? -14 : std::max(exponent - 1, -14);
  const auto steps = static_cast<unsigned>(std::nearbyint(std::ldexp(size, 10 - exponent)));  // a carry goes into the exponent
  return half(sign | ((static_cast<unsigned>(exponent + 14) << 10) + steps));
}
