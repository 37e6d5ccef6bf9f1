#include <algorithm>

#include "clip/src/text/ftfy.h"
#include "clip/src/text/html.h"
#include "clip/src/text/unicode.h"

#include "twinlens/clip/tokenizer.h"
#include "twinlens/kernels/error.h"

namespace twinlens {
namespace {

// White space beyond ASCII begins with one of four bytes: U+0085, U+00A0, U+1680, U+2000 to U+205F, U+3000.
bool may_be_space(char c) {
  const auto byte = static_cast<unsigned char>(c);
  return byte <= ' ' || byte == 0xC2 || (byte >= 0xE1 && byte <= 0xE3);
}

// Runs of white space become one space, none at the ends. The text does not grow, so it is done in place.
void collapse_space(std::string& text) {
  std::size_t out = 0;
  bool pending = false;
  for (std::size_t i = 0; i < text.size();) {
    if (!pending && !may_be_space(text[i])) {
      text[out++] = text[i++];
      continue;
    }
    const std::size_t begin = i;
    if (is_python_space(next_valid(text, i))) {
      pending = out != 0;
      continue;
    }
    if (pending) text[out++] = ' ';
    pending = false;
    for (std::size_t k = begin; k < i; ++k) text[out++] = text[k];
  }
  text.resize(out);
}

// string.punctuation of Python.
bool is_ascii_punctuation(char c) {
  return (c >= '!' && c <= '/') || (c >= ':' && c <= '@') || (c >= '[' && c <= '`') || (c >= '{' && c <= '~');
}

std::string without_punctuation(std::string text) {
  for (char& c : text) c = c == '_' ? ' ' : c;
  text.erase(std::remove_if(text.begin(), text.end(), is_ascii_punctuation), text.end());
  return text;
}

}  // namespace

Cleaning parse_cleaning(std::string_view name) {
  if (name == "none") return Cleaning::none;
  if (name == "ftfy" || name == "lower") return Cleaning::ftfy;
  if (name == "whitespace") return Cleaning::whitespace;
  if (name == "canonicalize") return Cleaning::canonicalize;
  throw ConfigError("unknown cleaning '" + std::string(name) + "'; tokenizer; use none, ftfy (or lower), whitespace or canonicalize");
}

std::string clean_text(std::string_view text, Cleaning cleaning) {
  std::string clean = valid_utf8(text);
  if (cleaning != Cleaning::none) clean = fix_text(std::move(clean));
  // Twice, because captions scraped from the web are often escaped twice; OpenAI's tokenizer does so.
  for (int pass = 0; pass < 2 && clean.find('&') != std::string::npos; ++pass) clean = html_unescape(clean);
  if (cleaning == Cleaning::canonicalize) clean = without_punctuation(std::move(clean));
  collapse_space(clean);
  return cleaning == Cleaning::whitespace ? clean : lower_case(std::move(clean));
}

}  // namespace twinlens
