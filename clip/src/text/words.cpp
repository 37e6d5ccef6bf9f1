#include "clip/src/text/words.h"

#include "clip/src/text/unicode.h"

namespace twinlens {
namespace {

// Bytes of `text` at i that match the lower-case `pattern` when case is ignored, 0 for none. Beside ASCII's capitals U+017F (long s, two
// bytes) is an s.
std::size_t match(std::string_view text, std::size_t i, std::string_view pattern) {
  const std::size_t begin = i;
  for (const char c : pattern) {
    if (i < text.size() && (text[i] == c || (c >= 'a' && c <= 'z' && text[i] == c - 'a' + 'A'))) {
      ++i;
    } else if (c == 's' && text.substr(i, 2) == "\xC5\xBF") {
      i += 2;
    } else {
      return 0;
    }
  }
  return i - begin;
}

// U+0345, a mark whose upper case is a letter, is in none of the expression's sets when case is ignored: it separates and vanishes.
CharClass kind_of(std::uint32_t c) { return c == 0x345 ? CharClass::space : class_of(c); }

}  // namespace

std::size_t WordScanner::special_at(std::size_t i) const {
  if (text_[i] != '<') return 0;
  for (const std::string_view special : specials_) {
    if (const std::size_t n = match(text_, i, special); n != 0) return n;
  }
  return 0;
}

std::size_t WordScanner::contraction_at(std::size_t i) const {
  if (text_[i] != '\'') return 0;
  for (const std::string_view tail : {"'s", "'t", "'re", "'ve", "'m", "'ll", "'d"}) {
    if (const std::size_t n = match(text_, i, tail); n != 0) return n;
  }
  return 0;
}

bool WordScanner::next(std::string_view& word) {
  while (at_ < text_.size()) {
    const std::size_t begin = at_;
    std::size_t taken = special_at(begin);
    if (taken == 0) taken = contraction_at(begin);
    if (taken != 0) {
      at_ = begin + taken;
      word = text_.substr(begin, taken);
      return true;
    }
    const CharClass kind = kind_of(next_valid(text_, at_));
    if (kind == CharClass::space) continue;
    while (kind != CharClass::number && at_ < text_.size()) {
      std::size_t after = at_;
      if (kind_of(next_valid(text_, after)) != kind) break;
      at_ = after;
    }
    word = text_.substr(begin, at_ - begin);
    return true;
  }
  return false;
}

}  // namespace twinlens
