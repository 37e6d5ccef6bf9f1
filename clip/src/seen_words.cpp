#include "twinlens/clip/seen_words.h"

#include <algorithm>

#include "twinlens/clip/tokenizer.h"

namespace twinlens {

std::vector<std::string> words_of(std::string_view text) {
  std::vector<std::string> words;
  bool inside = false;
  for (const char c : clean_text(text, Cleaning::none)) {
    const bool letter = (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9') || static_cast<unsigned char>(c) >= 0x80;
    if (letter && !inside) words.emplace_back();
    if (letter) words.back() += c;
    inside = letter;
  }
  return words;
}

void SeenWords::add(std::string_view caption) {
  for (std::string& word : words_of(caption)) words_.insert(std::move(word));
}

bool SeenWords::contains_all_of(std::string_view caption) const {
  const std::vector<std::string> words = words_of(caption);
  return std::all_of(words.begin(), words.end(), [&](const std::string& word) { return words_.count(word) > 0; });
}

}  // namespace twinlens
