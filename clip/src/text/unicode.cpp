#include "clip/src/text/unicode.h"

#include <algorithm>
#include <unicode/bytestream.h>
#include <unicode/casemap.h>
#include <unicode/stringpiece.h>
#include <unicode/uchar.h>
#include <unicode/utf8.h>

#include "clip/src/text/code_point_pages.h"

namespace twinlens {
namespace {

struct Property {
  std::uint32_t lower;  // by itself; what context or a second character decides is lower_case()'s
  CharClass kind;
};

CharClass icu_class(std::uint32_t c) {
  const auto point = static_cast<UChar32>(c);
  const std::uint32_t mask = U_GET_GC_MASK(point);
  if ((mask & U_GC_L_MASK) != 0) return CharClass::letter;
  // Python's regex knows Unicode 17, ICU 72 knows 15. This letter lies among subscripts that repaired encodings reach.
  if (c == 0x208F) return CharClass::letter;
  if ((mask & U_GC_N_MASK) != 0) return CharClass::number;
  return u_isUWhiteSpace(point) ? CharClass::space : CharClass::other;
}

Property property_of(std::uint32_t c) { return {static_cast<std::uint32_t>(u_tolower(static_cast<UChar32>(c))), icu_class(c)}; }

constinit const CodePointPages<Property, property_of> properties;

std::string icu_lower_case(const std::string& text) {
  UErrorCode status = U_ZERO_ERROR;
  std::string out;
  icu::StringByteSink<std::string> sink(&out);
  icu::CaseMap::utf8ToLower("", 0, icu::StringPiece(text.data(), static_cast<std::int32_t>(text.size())), sink, nullptr, status);
  return U_SUCCESS(status) ? out : text;
}

}  // namespace

void append_utf8(std::string& out, std::uint32_t c) {
  if (c < 0x80) {
    out += static_cast<char>(c);
    return;
  }
  char bytes[4];
  std::size_t n = 0;
  U8_APPEND_UNSAFE(bytes, n, c);
  out.append(bytes, n);
}

std::uint32_t next_code_point(std::string_view text, std::size_t& i) {
  const char* const s = text.data();
  const auto first = static_cast<unsigned char>(s[i]);
  if (first < 0x80) {
    ++i;
    return first;
  }
  auto at = static_cast<std::int64_t>(i);
  const auto length = static_cast<std::int64_t>(text.size());
  UChar32 c = 0;
  U8_NEXT_OR_FFFD(reinterpret_cast<const std::uint8_t*>(s), at, length, c);
  i = static_cast<std::size_t>(at);
  return static_cast<std::uint32_t>(c);
}

bool is_ascii(std::string_view text) {
  // Without a way out in the middle, so that it runs in vectors; texts are short.
  unsigned char all = 0;
  for (const char c : text) all = static_cast<unsigned char>(all | static_cast<unsigned char>(c));
  return all < 0x80;
}

std::string valid_utf8(std::string_view text) {
  if (is_ascii(text)) return std::string(text);
  const char* const s = text.data();
  const auto length = static_cast<std::int64_t>(text.size());
  std::int64_t at = 0;
  UChar32 c = 0;
  while (at < length && c >= 0) U8_NEXT(reinterpret_cast<const std::uint8_t*>(s), at, length, c);
  if (c >= 0) return std::string(text);
  std::string out;
  out.reserve(text.size());
  for (std::size_t i = 0; i < text.size();) append_utf8(out, next_code_point(text, i));
  return out;
}

std::string lower_case(std::string text, bool final_sigma) {
  std::size_t i = 0;
  while (i < text.size()) {
    char& byte = text[i];
    if (static_cast<unsigned char>(byte) < 0x80) {
      byte = byte >= 'A' && byte <= 'Z' ? static_cast<char>(byte | 0x20) : byte;
      ++i;
      continue;
    }
    std::size_t after = i;
    const std::uint32_t c = next_valid(text, after);
    if (properties[c].lower != c) break;
    i = after;
  }
  if (i == text.size()) return text;
  std::string out(text, 0, i);
  out.reserve(text.size());
  while (i < text.size()) {
    const std::uint32_t c = next_valid(text, i);
    constexpr std::uint32_t kSigma = 0x3A3, kDottedI = 0x130;
    // (The ASCII letters before are lower-case already, which changes no context.)
    if (final_sigma && (c == kSigma || c == kDottedI)) return icu_lower_case(text);
    append_utf8(out, properties[c].lower);
    if (c == kDottedI) append_utf8(out, 0x307);  // i and a dot above
  }
  return out;
}

std::string upper_case(std::string_view text) {
  UErrorCode status = U_ZERO_ERROR;
  std::string out;
  icu::StringByteSink<std::string> sink(&out);
  icu::CaseMap::utf8ToUpper("", 0, icu::StringPiece(text.data(), static_cast<std::int32_t>(text.size())), sink, nullptr, status);
  return U_SUCCESS(status) ? out : std::string(text);
}

std::u32string to_utf32(std::string_view text) {
  std::u32string out;
  out.reserve(text.size());
  for (std::size_t i = 0; i < text.size();) out += static_cast<char32_t>(next_code_point(text, i));
  return out;
}

std::string to_utf8(std::u32string_view text) {
  std::string out;
  out.reserve(text.size());
  for (const char32_t c : text) append_utf8(out, static_cast<std::uint32_t>(c));
  return out;
}

bool is_python_space(std::uint32_t c) { return class_of(c) == CharClass::space || (c >= 0x1C && c <= 0x1F); }

CharClass class_of(std::uint32_t c) {
  if (c < 0x80) {
    if ((c | 0x20) >= 'a' && (c | 0x20) <= 'z') return CharClass::letter;
    if (c >= '0' && c <= '9') return CharClass::number;
    return c == ' ' || (c >= 0x9 && c <= 0xD) ? CharClass::space : CharClass::other;
  }
  return properties[c].kind;
}

}  // namespace twinlens
