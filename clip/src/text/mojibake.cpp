#include "clip/src/text/mojibake.h"

#include <algorithm>
#include <optional>

#include "clip/src/text/mojibake_rules.h"

namespace twinlens {
namespace {

using Text = std::u32string;   // characters
using Bytes = std::u32string;  // one byte an element
using View = std::u32string_view;

bool is_continuation(char32_t byte) { return byte >= 0x80 && byte <= 0xBF; }

// Replaces what the sequences match, from the left.
template <class F>
Bytes replace(const Sequences& what, View bytes, F append) {
  Bytes out;
  for (std::size_t i = 0; i < bytes.size();) {
    const std::size_t n = what.match(bytes, i);
    if (n == 0) {
      out += bytes[i++];
    } else {
      append(out, bytes.substr(i, n));
      i += n;
    }
  }
  return out;
}

// Bytes A0 that became spaces. A lone "Ã " is the word "à" and keeps its space, except before what can follow in one Portuguese word.
Bytes restore_byte_a0(View bytes) {
  Bytes words;
  for (std::size_t i = 0; i < bytes.size(); ++i) {
    words += bytes[i];
    if (bytes[i] != 0xC3 || i + 1 >= bytes.size() || bytes[i + 1] != ' ') continue;
    const View rest = bytes.substr(i + 2);
    bool one_word = false;
    for (const View tail : {View(U" "), View(U"quele"), View(U"quela"), View(U"quilo"), View(U"s ")})
      one_word = one_word || rest.starts_with(tail);
    if (!one_word) words += U'\xA0';
  }
  return replace(mojibake_rules().altered, words, [](Bytes& out, View found) {
    for (const char32_t b : found) out += b == ' ' ? U'\xA0' : b;
  });
}

Bytes replace_lossy(View bytes) {
  return replace(mojibake_rules().lossy, bytes, [](Bytes& out, View) { out += U"\xEF\xBF\xBD"; });
}

// The six bytes of a surrogate pair, each half encoded as three.
std::optional<char32_t> cesu8_pair(View b) {
  const bool is = b.size() >= 6 && b[0] == 0xED && b[1] >= 0xA0 && b[1] <= 0xAF && is_continuation(b[2]) && b[3] == 0xED && b[4] >= 0xB0 &&
                  b[4] <= 0xBF && is_continuation(b[5]);
  if (!is) return {};
  return ((b[1] & 0x0F) << 16) + ((b[2] & 0x3F) << 10) + ((b[4] & 0x0F) << 6) + (b[5] & 0x3F) + 0x10000;
}

// Strict UTF-8: no surrogates, nothing overlong. Takes the bytes of one character off the front.
std::optional<char32_t> strict_character(View& b) {
  const char32_t first = b[0];
  const std::size_t n = first < 0x80                     ? 1
                        : first >= 0xC2 && first <= 0xDF ? 2
                        : (first & 0xF0) == 0xE0         ? 3
                        : first >= 0xF0 && first <= 0xF4 ? 4
                                                         : 0;
  if (n == 0 || b.size() < n) return {};
  char32_t c = n == 1 ? first : first & (0x7FU >> n);
  for (std::size_t k = 1; k < n; ++k) {
    if (!is_continuation(b[k])) return {};
    c = (c << 6) | (b[k] & 0x3F);
  }
  constexpr char32_t kLeast[] = {0, 0, 0x80, 0x800, 0x10000};
  if (c < kLeast[n] || c > 0x10FFFF || (c >= 0xD800 && c <= 0xDFFF)) return {};
  b.remove_prefix(n);
  return c;
}

// UTF-8; with `variants` also Java's (a zero as C0 80) and CESU-8.
std::optional<Text> decode_utf8(View b, bool variants) {
  Text out;
  while (!b.empty()) {
    if (variants && b[0] == 0xC0 && b.size() > 1 && (b[1] == 0x80 || (b[1] == '\n' && b.size() == 2))) {
      out += U'\0';  // (the line feed: ftfy's expression lets `$` match before it)
      b.remove_prefix(2);
    } else if (const auto pair = variants ? cesu8_pair(b) : std::nullopt) {
      out += *pair;
      b.remove_prefix(6);
    } else if (const auto c = strict_character(b)) {
      out += *c;
    } else {
      return {};
    }
  }
  return out;
}

std::optional<Text> decode_from(const CodePage& page, View text) {
  std::optional<Bytes> bytes = page.encode(text);
  if (!bytes) return {};
  // In MacRoman, an en dash before a space would look like it.
  if (page.name != "macroman" && mojibake_rules().altered.found_in(*bytes)) bytes = restore_byte_a0(*bytes);
  if (page.sloppy) bytes = replace_lossy(*bytes);
  const bool variants = bytes->find(0xED) != Bytes::npos || bytes->find(0xC0) != Bytes::npos;
  return decode_utf8(*bytes, variants);
}

// Runs that look like UTF-8 read by a single-byte encoding, repaired by themselves.
Text decode_inconsistent(View text) {
  const auto& clues = mojibake_rules().clues;
  static const CharSet &two = clues.at("utf8_first_of_2"), &three = clues.at("utf8_first_of_3"), &four = clues.at("utf8_first_of_4"),
                       &follows = clues.at("utf8_continuation"), &strict = clues.at("utf8_continuation_strict");
  const auto character = [&](std::size_t i) -> std::size_t {
    std::size_t following = 0;
    while (following < 3 && i + following + 1 < text.size() && follows.contains(text[i + following + 1])) ++following;
    if (two.contains(text[i]) && following >= 1) return 2;
    if (three.contains(text[i]) && following >= 2) return 3;
    return four.contains(text[i]) && following >= 3 ? 4 : 0;
  };
  Text out;
  for (std::size_t i = 0; i < text.size();) {
    std::size_t end = i;
    if (i == 0 || !strict.contains(text[i - 1])) {
      while (end < text.size()) {
        const std::size_t n = character(end);
        if (n == 0) break;
        end += n;
      }
    }
    if (end == i) {
      out += text[i++];
      continue;
    }
    const View run = text.substr(i, end - i);
    // Shorter than the text, so that this ends.
    out += run.size() < text.size() && mojibake_rules().bad.found_in(run) ? fix_encoding(Text(run)) : Text(run);
    i = end;
  }
  return out;
}

// Latin-1 that was meant to be Windows-1252, when all its control characters mean something there.
std::optional<Text> latin1_as_windows(View text) {
  if (std::any_of(text.begin(), text.end(), [](char32_t c) { return c > 0xFF; })) return {};
  for (const char32_t hole : {0x81, 0x8D, 0x8F, 0x90, 0x9D}) {
    if (text.find(hole) != View::npos) return {};
  }
  return fix_c1_controls(Text(text));
}

Text one_step(const Text& text) {
  const MojibakeRules& rules = mojibake_rules();
  const bool ascii = std::all_of(text.begin(), text.end(), [](char32_t c) { return c < 0x80; });
  if (ascii || !rules.bad.found_in(text)) return text;
  for (const CodePage& page : rules.pages) {
    if (const auto decoded = decode_from(page, text)) return *decoded;
  }
  Text fixed = decode_inconsistent(text);
  if (fixed != text) return fixed;
  if (const auto windows = latin1_as_windows(text); windows.has_value() && *windows != text) return *windows;
  return fix_c1_controls(text);
}

}  // namespace

std::u32string fix_c1_controls(std::u32string text) {
  static const CodePage& windows = mojibake_rules().page("sloppy-windows-1252");
  for (char32_t& c : text) {
    if (c >= 0x80 && c <= 0x9F) c = windows.upper[c - 0x80];
  }
  return text;
}

std::u32string fix_encoding(std::u32string text) {
  while (true) {
    Text next = one_step(text);
    if (next == text) return text;
    text = std::move(next);
  }
}

}  // namespace twinlens
