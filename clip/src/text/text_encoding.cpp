#include "twinlens/clip/text_encoding.h"

#include <algorithm>
#include <cstdio>

#include "clip/src/text/unicode.h"

#include "twinlens/kernels/error.h"

namespace twinlens {
namespace {

std::string utf16(const char* name) { return std::string("UTF-16, not UTF-8; iconv -f ") + name + " -t utf-8 FILE > NEW makes it UTF-8"; }

}  // namespace

std::string_view without_byte_order_mark(std::string_view text) {
  if (text.starts_with("\xEF\xBB\xBF")) text.remove_prefix(3);
  return text;
}

std::string encoding_problem(std::string_view text) {
  if (text.starts_with("\xFF\xFE") || text.starts_with("\xFE\xFF")) return utf16("utf-16");
  // Without a mark: every second byte of what is mostly Latin is zero, and few of the others.
  std::size_t zeros[2] = {0, 0};
  for (std::size_t i = 0; i < text.size(); ++i) zeros[i % 2] += text[i] == '\0' ? 1 : 0;
  const auto [few, many] = std::minmax(zeros[0], zeros[1]);
  if ((few + many) * 3 > text.size() && many > 0) {
    if (few * 20 < text.size()) return utf16(zeros[0] > zeros[1] ? "utf-16be" : "utf-16le");
    return "no text; more than a third of it are zero bytes; give a text file";
  }
  const std::string valid = valid_utf8(text);
  const std::size_t same =
      static_cast<std::size_t>(std::mismatch(text.begin(), text.end(), valid.begin(), valid.end()).first - text.begin());
  if (same == text.size()) return {};
  char where[64];
  std::snprintf(where, sizeof where, "byte %zu is 0x%02X", same + 1, static_cast<unsigned>(static_cast<unsigned char>(text[same])));
  return std::string("not UTF-8; ") + where + "; where it is Latin-1, iconv -f latin1 -t utf-8 FILE > NEW makes it UTF-8";
}

void require_utf8(std::string_view line, const std::string& file, std::int64_t number) {
  if (const std::string problem = encoding_problem(line); !problem.empty())
    throw FileError("the list cannot be read; " + file + ", line " + std::to_string(number) + " is " + problem);
}

bool next_list_line(std::istream& lines, const std::string& file, std::int64_t& number, std::string& line) {
  if (!std::getline(lines, line)) return false;
  if (++number == 1) line.erase(0, line.size() - without_byte_order_mark(line).size());
  if (line.ends_with('\r')) line.pop_back();
  require_utf8(line, file, number);
  return true;
}

}  // namespace twinlens
