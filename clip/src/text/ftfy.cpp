#include "clip/src/text/ftfy.h"

#include <algorithm>
#include <unicode/bytestream.h>
#include <unicode/normalizer2.h>
#include <unicode/stringpiece.h>
#include <unicode/uchar.h>

#include "clip/src/text/code_point_pages.h"
#include "clip/src/text/html.h"
#include "clip/src/text/mojibake.h"
#include "clip/src/text/mojibake_rules.h"
#include "clip/src/text/unicode.h"

namespace twinlens {
namespace {

using Text = std::u32string;
using View = std::u32string_view;

std::string normalized(const icu::Normalizer2* form, const std::string& text) {
  UErrorCode status = U_ZERO_ERROR;
  std::string out;
  icu::StringByteSink<std::string> sink(&out);
  form->normalizeUTF8(0, icu::StringPiece(text.data(), static_cast<std::int32_t>(text.size())), sink, nullptr, status);
  return U_SUCCESS(status) ? out : text;
}
Text nfc(const Text& text) {
  // Nothing below U+0300 changes.
  if (std::all_of(text.begin(), text.end(), [](char32_t c) { return c < 0x300; })) return text;
  UErrorCode status = U_ZERO_ERROR;
  static const icu::Normalizer2* const form = icu::Normalizer2::getNFCInstance(status);
  return to_utf32(normalized(form, to_utf8(text)));
}

bool is_ascii_alnum(char32_t c) { return (c >= '0' && c <= '9') || (c >= 'A' && c <= 'Z') || (c >= 'a' && c <= 'z'); }

// One "&name;" or "&#...;", semicolon included; itself when it means nothing.
std::string entity(const std::string& reference) {
  if (reference[1] == '#') {
    const std::string value = html_unescape(reference);
    return value.find(';') == std::string::npos ? value : reference;
  }
  const std::string name = reference.substr(1);
  if (const std::string* value = html_entity(name)) return *value;
  // Capitals throughout, as in P&EACUTE;REZ, where that is no name of its own.
  const bool capitals = std::none_of(name.begin(), name.end(), [](char c) { return c >= 'a' && c <= 'z'; });
  const std::string* small = capitals ? html_entity(lower_case(name)) : nullptr;
  return small != nullptr && html_unescape(reference) == reference ? upper_case(*small) : reference;
}

Text unescape_html(View text) {
  constexpr std::size_t kLongest = 24;
  Text out;
  for (std::size_t i = 0; i < text.size();) {
    std::size_t end = i + 1;
    if (text[i] == '&' && end < text.size() && text[end] == '#') ++end;
    const std::size_t first = end;
    while (text[i] == '&' && end < text.size() && is_ascii_alnum(text[end])) ++end;
    if (text[i] == '&' && end > first && end - first <= kLongest && end < text.size() && text[end] == ';') {
      out += to_utf32(entity(to_utf8(text.substr(i, end + 1 - i))));
      i = end + 1;
    } else {
      out += text[i++];
    }
  }
  return out;
}

// Full- and half-width forms as their ordinary forms, the ideographic space as a space.
const Text& ordinary_width(char32_t c) {
  static const auto forms = [] {
    UErrorCode status = U_ZERO_ERROR;
    const icu::Normalizer2* const form = icu::Normalizer2::getNFKCInstance(status);
    std::vector<Text> out;
    for (char32_t wide = 0xFF01; wide < 0xFFF0; ++wide) out.push_back(to_utf32(normalized(form, to_utf8(Text(1, wide)))));
    return out;
  }();
  return forms[c - 0xFF01];
}

// What is done character by character: ligatures, widths, quotes. (Each maps to what no other of them changes.)
Text simple_forms(View text) {
  const auto& ligatures = mojibake_rules().ligatures;
  Text out;
  for (const char32_t c : text) {
    const bool may_be_ligature = (c >= 0x132 && c <= 0x1F3) || (c >= 0xFB00 && c <= 0xFB06);
    const auto ligature = may_be_ligature ? ligatures.find(c) : ligatures.end();
    if (ligature != ligatures.end()) {
      for (const char32_t part : ligature->second) out += part == 0x2BC ? U'\'' : part;
    } else if (c >= 0xFF01 && c < 0xFFF0) {
      out += ordinary_width(c);
    } else if (c == 0x3000) {
      out += U' ';
    } else if (c == 0x2BC || (c >= 0x2018 && c <= 0x201B)) {
      out += U'\'';
    } else if (c >= 0x201C && c <= 0x201F) {
      out += U'"';
    } else {
      out += c;
    }
  }
  return out;
}

Text line_ends(View text) {
  Text out;
  for (std::size_t i = 0; i < text.size(); ++i) {
    const char32_t c = text[i];
    if (c == '\r' && i + 1 < text.size() && text[i + 1] == '\n') continue;
    out += c == '\r' || c == 0x2028 || c == 0x2029 || c == 0x85 ? U'\n' : c;
  }
  return out;
}

// ESC [ digits and semicolons, then a letter.
Text without_terminal_escapes(View text) {
  Text out;
  for (std::size_t i = 0; i < text.size();) {
    std::size_t end = i;
    if (text[i] == 0x1B && i + 1 < text.size() && text[i + 1] == '[') {
      end = i + 2;
      while (end < text.size() && (text[end] == ';' || u_isdigit(static_cast<UChar32>(text[end])) != 0)) ++end;
      const bool letter = end < text.size() && ((text[end] | 0x20) >= 'a' && (text[end] | 0x20) <= 'z') && text[end] < 0x80;
      end = letter ? end + 1 : i;
    }
    if (end == i) out += text[i++];
    i = std::max(i, end);
  }
  return out;
}

bool is_control(char32_t c) {
  return c <= 0x08 || c == 0x0B || (c >= 0x0E && c <= 0x1F) || c == 0x7F || (c >= 0x206A && c <= 0x206F) || c == 0xFEFF ||
         (c >= 0xFFF9 && c <= 0xFFFC);
}

Text fix_line(Text text, bool unescape) {
  while (true) {
    Text next = unescape ? unescape_html(text) : text;
    next = fix_encoding(std::move(next));
    next = without_terminal_escapes(line_ends(simple_forms(fix_c1_controls(std::move(next)))));
    next.erase(std::remove_if(next.begin(), next.end(), is_control), next.end());
    next = nfc(next);
    if (next == text) return text;
    text = std::move(next);
  }
}

// What is_settled() asks of a code point.
struct Traits {
  bool changes = false;     // by itself, or it may begin what changes
  bool begins_bad = false;  // a rule for wrong decoding has it first
};
Traits traits_of(std::uint32_t code) {
  const char32_t c = code;
  Traits out;
  const bool c1 = c >= 0x80 && c <= 0x9F;
  const Text alone(1, c);
  out.changes = c == '&' || c == '\r' || c == 0x1B || c1 || is_control(c) || simple_forms(alone) != alone || line_ends(alone) != alone;
  out.begins_bad = mojibake_rules().bad.mask(c, 0) != 0;
  return out;
}

constexpr bool is_plain(unsigned char c) { return (c >= 0x20 && c < 0x7F && c != '&') || c == '\n' || c == '\t'; }

bool is_nfc(const std::string& text) {
  UErrorCode status = U_ZERO_ERROR;
  static const icu::Normalizer2* const form = icu::Normalizer2::getNFCInstance(status);
  return form->isNormalizedUTF8(icu::StringPiece(text.data(), static_cast<std::int32_t>(text.size())), status) != 0 && U_SUCCESS(status);
}

// True when it is plain to see that fix_text() changes nothing; most texts are of this kind. False says nothing.
bool is_settled(const std::string& text) {
  static const CodePointPages<Traits, traits_of> traits;
  bool plain = true;
  for (const char c : text) plain &= is_plain(static_cast<unsigned char>(c));
  if (plain) return true;
  const Sequences& bad = mojibake_rules().bad;
  std::uint64_t begun = 0;  // rules that have the last character first
  char32_t largest = 0;
  for (std::size_t i = 0; i < text.size();) {
    const std::uint32_t c = next_valid(text, i);
    const Traits& t = traits[c];
    if (t.changes || (begun != 0 && (begun & bad.mask(c, 1)) != 0)) return false;
    begun = t.begins_bad ? bad.mask(c, 0) : 0;
    largest = std::max<char32_t>(largest, c);
  }
  // Nothing below U+0300 changes in normal form C.
  return (begun & bad.single()) == 0 && (largest < 0x300 || is_nfc(text));
}

}  // namespace

std::string fix_text(std::string text) {
  if (is_settled(text)) return text;
  constexpr std::size_t kLongest = 1'000'000;
  const Text all = to_utf32(text);
  std::string out;
  bool unescape = true;
  for (std::size_t begin = 0; begin < all.size();) {
    const std::size_t newline = all.find(U'\n', begin);
    const std::size_t end = std::min(newline == Text::npos ? all.size() : newline + 1, begin + kLongest);
    const View line = View(all).substr(begin, end - begin);
    unescape = unescape && line.find(U'<') == View::npos;
    out += to_utf8(fix_line(Text(line), unescape));
    begin = end;
  }
  return out;
}

}  // namespace twinlens
