#pragma once
// Which cards a build has code for, by the entries of CMake's CUDA_ARCHITECTURES that it was compiled for.

#include <string>
#include <string_view>

namespace twinlens {

// Asynchronous copies to shared memory and products of bf16 begin with compute capability 8.0.
inline constexpr int kOldestCard = 80;

// Whether one entry, such as 90, 90-real (machine code alone), 90-virtual (PTX alone), 90a or 100f, serves a card of compute capability
// `card` (90 for 9.0). Machine code serves later cards of the same major number, PTX all later ones; that of 90a serves 9.0 alone, of 100f
// the same major number.
constexpr bool entry_serves(std::string_view entry, int card) {
  int number = 0;
  std::size_t i = 0;
  for (; i < entry.size() && entry[i] >= '0' && entry[i] <= '9'; ++i) number = number * 10 + (entry[i] - '0');
  const char features = i < entry.size() && entry[i] != '-' ? entry[i] : ' ';
  if (features == 'a') return card == number;
  const bool forward = features != 'f' && !entry.ends_with("-real");
  return card >= number && (forward || card / 10 == number / 10);
}

// The same of entries with commas between them.
constexpr bool built_for(std::string_view entries, int card) {
  while (!entries.empty()) {
    const std::size_t comma = entries.find(',');
    if (entry_serves(entries.substr(0, comma), card)) return true;
    entries = comma == std::string_view::npos ? std::string_view() : entries.substr(comma + 1);
  }
  return false;
}

// Why a build for `entries` has no code for a card; one line.
inline std::string no_code_for(std::string_view entries, int card) {
  const auto version = [](int v) { return std::to_string(v / 10) + "." + std::to_string(v % 10); };
  if (card < kOldestCard) {
    return "the NVIDIA card is too old: compute capability " + version(card) + ", twinlens needs " + version(kOldestCard) +
           "; device cuda; take a newer card, or use --device cpu";
  }
  return "this build has no code for the NVIDIA card: compute capability " + version(card) + ", built for " + std::string(entries) +
         "; device cuda; configure with -DTWINLENS_CUDA_ARCHITECTURES=" + std::to_string(card) + ", or use --device cpu";
}

}  // namespace twinlens
