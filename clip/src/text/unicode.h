#pragma once
// The little of Unicode that tokenizing needs, on UTF-8, by ICU; what ICU says of a code point is kept (code_point_pages.h).

#include <cstdint>
#include <string>
#include <string_view>

namespace twinlens {

void append_utf8(std::string& out, std::uint32_t code_point);
// Decodes the code point at text[i] and moves i behind it. Invalid bytes give U+FFFD.
std::uint32_t next_code_point(std::string_view text, std::size_t& i);

// The same of a text that is known to be valid UTF-8.
inline std::uint32_t next_valid(std::string_view text, std::size_t& i) {
  const auto byte = [&](std::size_t k) { return static_cast<std::uint32_t>(static_cast<unsigned char>(text[i + k])); };
  const std::uint32_t first = byte(0);
  std::uint32_t c = first;
  std::size_t n = 1;
  if (first >= 0xF0) {
    c = (first & 0x07U) << 18U | (byte(1) & 0x3FU) << 12U | (byte(2) & 0x3FU) << 6U | (byte(3) & 0x3FU);
    n = 4;
  } else if (first >= 0xE0) {
    c = (first & 0x0FU) << 12U | (byte(1) & 0x3FU) << 6U | (byte(2) & 0x3FU);
    n = 3;
  } else if (first >= 0x80) {
    c = (first & 0x1FU) << 6U | (byte(1) & 0x3FU);
    n = 2;
  }
  i += n;
  return c;
}

bool is_ascii(std::string_view text);
// The text with every invalid sequence replaced by U+FFFD, one for each maximal part of a sequence.
std::string valid_utf8(std::string_view text);
// Full lower-casing of valid UTF-8, independent of language: final sigma in context, capital I with dot to i + U+0307.
std::string lower_case(std::string text, bool final_sigma = true);

// Full upper-casing, likewise.
std::string upper_case(std::string_view text);

std::u32string to_utf32(std::string_view text);
std::string to_utf8(std::u32string_view text);

// White space as Python's str.split and `\s` know it: White_Space and the four information separators U+001C to U+001F.
bool is_python_space(std::uint32_t code_point);

enum class CharClass : std::uint8_t { other, letter, number, space };
// Unicode categories L and N, property White_Space.
CharClass class_of(std::uint32_t code_point);

}  // namespace twinlens
