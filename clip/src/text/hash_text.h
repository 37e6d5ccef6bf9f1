#pragma once
// A hash of short texts for tables in memory: eight bytes at a time. Not for files, and not against those who choose the texts to collide.

#include <cstdint>
#include <cstring>
#include <string_view>

namespace twinlens {

inline std::uint64_t hash_text(std::string_view text) {
  constexpr std::uint64_t kOdd = 0x9E3779B97F4A7C15U;
  std::uint64_t h = text.size() * kOdd;
  const auto mix = [&h](std::uint64_t word) {
    h = (h ^ word) * kOdd;
    h ^= h >> 32U;
  };
  const char* at = text.data();
  std::size_t left = text.size();
  for (; left >= 8; at += 8, left -= 8) {
    std::uint64_t word = 0;
    std::memcpy(&word, at, 8);
    mix(word);
  }
  std::uint64_t word = 0;
  std::memcpy(&word, at, left);
  mix(word);
  return h * kOdd;  // the upper bits are the best
}

}  // namespace twinlens
