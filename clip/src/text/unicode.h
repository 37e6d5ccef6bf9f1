#pragma once
// The little of Unicode that tokenizing needs, on UTF-8, by ICU.

#include <cstdint>
#include <string>
#include <string_view>

namespace twinlens {

void append_utf8(std::string& out, std::uint32_t code_point);
// Decodes the code point at text[i] and moves i behind it. Invalid bytes give U+FFFD.
std::uint32_t next_code_point(std::string_view text, std::size_t& i);

// The text with every invalid sequence replaced by U+FFFD, one for each maximal part of a sequence.
std::string valid_utf8(std::string_view text);
// Full lower-casing independent of language: final sigma in context, capital I with dot to i + U+0307.
std::string lower_case(std::string_view text);

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
