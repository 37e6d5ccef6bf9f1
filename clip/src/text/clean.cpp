#include "clip/src/text/ftfy.h"
#include "clip/src/text/html.h"
#include "clip/src/text/unicode.h"

#include "twinlens/clip/tokenizer.h"

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

}  // namespace

std::string clean_text(std::string_view text, Cleaning cleaning) {
  std::string clean = valid_utf8(text);
  if (cleaning == Cleaning::ftfy) clean = fix_text(clean);
  // Twice, because captions scraped from the web are often escaped twice; OpenAI's tokenizer does so.
  for (int pass = 0; pass < 2 && clean.find('&') != std::string::npos; ++pass) clean = html_unescape(clean);
  return lower_case(collapse_space(clean));
}

}  // namespace twinlens
