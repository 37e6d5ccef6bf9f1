#include "twinlens/clip/templates.h"

#include <filesystem>

#include "clip/src/embedded.h"

#include "twinlens/clip/text_encoding.h"
#include "twinlens/core/file.h"
#include "twinlens/kernels/error.h"

namespace twinlens {
namespace {

std::vector<std::string> parse(std::string_view text, const std::string& where) {
  std::vector<std::string> out;
  int number = 0;
  text = without_byte_order_mark(text);
  while (!text.empty()) {
    const std::size_t end = text.find('\n');
    std::string_view line = text.substr(0, end);
    text.remove_prefix(end == std::string_view::npos ? text.size() : end + 1);
    ++number;
    if (!line.empty() && line.back() == '\r') line.remove_suffix(1);
    require_utf8(line, where, number);
    if (line.find_first_not_of(" \t") == std::string_view::npos || line.front() == '#') continue;
    std::string text_with_place(line);
    for (std::size_t at = 0; (at = text_with_place.find("{c}", at)) != std::string::npos;) text_with_place.erase(at + 1, 1);
    if (text_with_place.find("{}") == std::string::npos) {
      throw ConfigError("template '" + std::string(line) + "' has no {}; " + where + ":" + std::to_string(number) +
                        "; write {} where the class name belongs");
    }
    out.push_back(std::move(text_with_place));
  }
  if (out.empty()) throw ConfigError("no templates; " + where + "; write one template a line, like: a photo of a {}.");
  return out;
}

}  // namespace

std::vector<std::string> load_templates(const std::string& name) {
  if (name == "openai") return parse(embedded(Embedded::templates_openai), name);
  if (name == "simple") return parse(embedded(Embedded::templates_simple), name);
  if (name == "photo") return {"a photo of a {}."};
  if (name == "none") return {"{}"};
  std::error_code unreadable;
  if (!std::filesystem::exists(name, unreadable) && !unreadable)
    throw FileError("no such template preset or file; '" + name + "'; use openai, simple, photo, none or a file with one template a line");
  return parse(read_file_or_pipe(name), name);
}

std::string fill_template(std::string_view text, std::string_view class_name) {
  std::string out;
  for (std::size_t at = 0; at < text.size();) {
    const std::size_t next = text.find("{}", at);
    out += text.substr(at, next == std::string_view::npos ? next : next - at);
    if (next == std::string_view::npos) break;
    out += class_name;
    at = next + 2;
  }
  return out;
}

}  // namespace twinlens
