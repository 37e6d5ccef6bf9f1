#pragma once
// Philox4x32-10, the counter-based generator of Salmon et al., "Parallel random numbers: as easy as 1, 2, 3" (SC 2011).
//
// A number is a pure function of (seed, step, site, sample, position): the same for any thread count, chunking, packing, number of
// ranks or resume. `site` is the hash of a name ("visual.patch_dropout"), `sample` the global sample id, `position` counts inside it.

#include <cstdint>

#include "twinlens/kernels/view.h"

namespace twinlens {

struct Philox4 {
  std::uint32_t v[4];
};

[[gnu::always_inline]] TWINLENS_HOST_DEVICE constexpr Philox4 philox(std::uint64_t key, std::uint64_t counter_high,
                                                                     std::uint64_t counter_low) {
  std::uint32_t k0 = static_cast<std::uint32_t>(key), k1 = static_cast<std::uint32_t>(key >> 32);
  std::uint32_t c0 = static_cast<std::uint32_t>(counter_low), c1 = static_cast<std::uint32_t>(counter_low >> 32);
  std::uint32_t c2 = static_cast<std::uint32_t>(counter_high), c3 = static_cast<std::uint32_t>(counter_high >> 32);
  for (int round = 0; round < 10; ++round) {
    const std::uint64_t p0 = std::uint64_t{0xD2511F53U} * c0;
    const std::uint64_t p1 = std::uint64_t{0xCD9E8D57U} * c2;
    c0 = static_cast<std::uint32_t>(p1 >> 32) ^ c1 ^ k0;
    c1 = static_cast<std::uint32_t>(p1);
    c2 = static_cast<std::uint32_t>(p0 >> 32) ^ c3 ^ k1;
    c3 = static_cast<std::uint32_t>(p0);
    k0 += 0x9E3779B9U;
    k1 += 0xBB67AE85U;
  }
  return {{c0, c1, c2, c3}};
}

// Mixes two words into one (the finaliser of splitmix64); used to fold (seed, step, site) into a Philox key.
[[gnu::always_inline]] TWINLENS_HOST_DEVICE constexpr std::uint64_t mix(std::uint64_t a, std::uint64_t b) {
  std::uint64_t z = a + 0x9E3779B97F4A7C15ULL * (b + 1);
  z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9ULL;
  z = (z ^ (z >> 27)) * 0x94D049BB133111EBULL;
  return z ^ (z >> 31);
}

// FNV-1a of a site name.
[[gnu::always_inline]] constexpr std::uint64_t site_hash(const char* name) {
  std::uint64_t h = 0xCBF29CE484222325ULL;
  for (; *name != 0; ++name) h = (h ^ static_cast<std::uint8_t>(*name)) * 0x100000001B3ULL;
  return h;
}

// [0, 1) with 24 random bits, exactly representable in f32.
[[gnu::always_inline]] TWINLENS_HOST_DEVICE constexpr float uniform_from_bits(std::uint32_t bits) {
  return static_cast<float>(bits >> 8) * 0x1p-24F;
}

}  // namespace twinlens
