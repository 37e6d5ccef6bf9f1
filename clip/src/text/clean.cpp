#include <algorithm>

#include "clip/src/text/ftfy.h"
#include "clip/src/text/html.h"
#include "clip/src/text/unicode.h"

#include "twinlens/clip/tokenizer.h"
#include "twinlens/kernels/error.h"

namespace twinlens {
namespace {

// Runs of white space become one space, none at the ends.
std::string collapse_space(std::string_view text) {
  std::string out;
  out.reserve(text.size());
  bool pending = false;
  for (std::size_t i = 0; i < text.size();) {
    const std::size_t begin = i;
    const std::uint32_t c = next_code_point(text, i);
    if (is_python_space(c)) {
      pending = !out.empty();
      continue;
    }
    if (pending) out += ' ';
    pending = false;
    out += text.substr(begin, i - begin);
  }
  return out;
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
  if (cleaning != Cleaning::none) clean = fix_text(clean);
  // Twice, because captions scraped from the web are often escaped twice; OpenAI's tokenizer does so.
  for (int pass = 0; pass < 2 && clean.find('&') != std::string::npos; ++pass) clean = html_unescape(clean);
  if (cleaning == Cleaning::canonicalize) clean = without_punctuation(std::move(clean));
  clean = collapse_space(clean);
  return cleaning == Cleaning::whitespace ? clean : lower_case(clean);
}

}  // namespace twinlens
