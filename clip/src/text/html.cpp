#include "clip/src/text/html.h"

#include <charconv>
#include <cstdint>
#include <unordered_map>

#include "clip/src/embedded.h"
#include "clip/src/text/unicode.h"

namespace twinlens {
namespace {

// Longest name the scanner takes, in code points, without the semicolon; the limit of html.unescape.
constexpr int kMaxName = 32;

// The names of the standard, without '&', with ';' where it is required.
const std::unordered_map<std::string_view, std::string>& entities() {
  static const auto table = [] {
    std::unordered_map<std::string_view, std::string> out;
    std::string_view text = embedded(Embedded::html_entities);
    while (!text.empty()) {
      std::string_view line = text.substr(0, text.find('\n'));
      text.remove_prefix(line.size() + 1);
      const std::size_t space = line.find(' ');
      std::string& value = out[line.substr(0, space)];
      const char* at = line.data() + space;
      const char* const end = line.data() + line.size();
      while (at < end) {
        std::uint32_t code = 0;
        at = std::from_chars(at + 1, end, code, 16).ptr;
        append_utf8(value, code);
      }
    }
    return out;
  }();
  return table;
}

// References to 0x80..0x9F mean Windows-1252, as in every browser; 0 where that page has nothing and the control character stays.
constexpr std::uint16_t kWindows[32] = {0x20AC, 0,      0x201A, 0x0192, 0x201E, 0x2026, 0x2020, 0x2021, 0x02C6, 0x2030, 0x0160,
                                        0x2039, 0x0152, 0,      0x017D, 0,      0,      0x2018, 0x2019, 0x201C, 0x201D, 0x2022,
                                        0x2013, 0x2014, 0x02DC, 0x2122, 0x0161, 0x203A, 0x0153, 0,      0x017E, 0x0178};

bool is_dropped(std::uint32_t c) {
  return (c >= 0x1 && c <= 0x8) || c == 0xB || (c >= 0xE && c <= 0x1F) || c == 0x7F || (c >= 0xFDD0 && c <= 0xFDEF) ||
         (c & 0xFFFE) == 0xFFFE;
}

void append_number(std::string& out, std::uint32_t c) {
  if (c == 0 || c > 0x10FFFF || (c >= 0xD800 && c <= 0xDFFF)) {
    append_utf8(out, 0xFFFD);
  } else if (c >= 0x80 && c <= 0x9F) {
    append_utf8(out, kWindows[c - 0x80] != 0 ? kWindows[c - 0x80] : c);
  } else if (!is_dropped(c)) {
    append_utf8(out, c);
  }
}

int digit_of(char c, int base) {
  if (c >= '0' && c <= '9') return c - '0';
  const char lower = static_cast<char>(c | 0x20);
  return base == 16 && lower >= 'a' && lower <= 'f' ? lower - 'a' + 10 : -1;
}

// Reads "#233;" or "#xE9" at the start of `s` (behind the '&'); returns the bytes taken, 0 when it is no reference.
std::size_t numeric_reference(std::string_view s, std::string& out) {
  std::size_t i = 1;
  const int base = i < s.size() && (s[i] == 'x' || s[i] == 'X') ? 16 : 10;
  if (base == 16) ++i;
  const std::size_t first = i;
  std::uint32_t code = 0;
  for (; i < s.size() && digit_of(s[i], base) >= 0; ++i) {
    if (code <= 0x10FFFF) code = code * static_cast<std::uint32_t>(base) + static_cast<std::uint32_t>(digit_of(s[i], base));
  }
  if (i == first) return 0;
  append_number(out, code);
  return i < s.size() && s[i] == ';' ? i + 1 : i;
}

// Reads "eacute;" or, where the standard allows it, "eacute" followed by anything.
std::size_t named_reference(std::string_view s, std::string& out) {
  std::size_t i = 0;
  for (int n = 0; i < s.size() && n < kMaxName; ++n) {
    constexpr std::string_view kStops = "\t\n\f <&#;";
    if (kStops.find(s[i]) != std::string_view::npos) break;
    do ++i;
    while (i < s.size() && (static_cast<unsigned char>(s[i]) & 0xC0) == 0x80);
  }
  if (i == 0) return 0;
  if (i < s.size() && s[i] == ';') ++i;
  const auto& table = entities();
  for (std::size_t n = i; n >= 2; --n) {
    const auto found = table.find(s.substr(0, n));
    if (found == table.end()) continue;
    out += found->second;
    return n;
  }
  return 0;
}

}  // namespace

const std::string* html_entity(std::string_view name) {
  const auto found = entities().find(name);
  return found == entities().end() ? nullptr : &found->second;
}

std::string html_unescape(std::string_view text) {
  std::string out;
  out.reserve(text.size());
  while (!text.empty()) {
    const std::size_t amp = text.find('&');
    out += text.substr(0, amp);
    if (amp == std::string_view::npos) break;
    text.remove_prefix(amp + 1);
    const std::size_t taken = text.starts_with('#') ? numeric_reference(text, out) : named_reference(text, out);
    if (taken == 0) out += '&';
    text.remove_prefix(taken);
  }
  return out;
}

}  // namespace twinlens
