#pragma once
// Parts of Hugging Face's tokenizer.json. What is not implemented is refused by name.

#include <cstdint>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "clip/src/text/unicode.h"

#include "twinlens/kernels/error.h"

namespace twinlens {

// What stands around a text: [start] text end.
struct TokenFrame {
  std::int32_t start = -1, end = -1;
};

inline std::string shown(const nlohmann::json& json) { return valid_utf8(json.dump().substr(0, 100)); }

[[noreturn]] inline void refuse_part(const std::string& key, const nlohmann::json& value, const std::string& source,
                                     const std::string& supported) {
  throw ConfigError("the tokenizer's " + key + " is not supported: " + shown(value) + "; " + source + "; supported: " + supported);
}

[[noreturn]] inline void refuse_pad(const std::string& pad, const std::string& source) {
  throw FileError("the vocabulary does not have the pad_token '" + pad + "' that the files beside it name; " + source +
                  "; use the files of one tokenizer");
}

// null where there is none.
inline const nlohmann::json& part_of(const nlohmann::json& json, const char* key) {
  static const nlohmann::json none;
  const auto found = json.find(key);
  return found == json.end() ? none : *found;
}

// The steps of a section: those of a Sequence, whose list is called `list`, or itself; none for null.
inline std::vector<const nlohmann::json*> steps_of(const nlohmann::json& section, const char* list) {
  if (section.is_null()) return {};
  if (section.at("type") != "Sequence") return {&section};
  std::vector<const nlohmann::json*> out;
  for (const nlohmann::json& step : section.at(list)) {
    const std::vector<const nlohmann::json*> inner = steps_of(step, list);
    out.insert(out.end(), inner.begin(), inner.end());
  }
  return out;
}

inline bool is_step(const nlohmann::json& step, const char* type) { return part_of(step, "type") == type; }

inline bool replaces(const nlohmann::json& step, const char* pattern, const char* content) {
  const nlohmann::json& by = part_of(step, "pattern");
  return is_step(step, "Replace") && (part_of(by, "Regex") == pattern || part_of(by, "String") == pattern) &&
         part_of(step, "content") == content;
}

// Settings that are there must have these values.
inline void check_settings(const nlohmann::json& section, const std::string& name,
                           const std::vector<std::pair<const char*, nlohmann::json>>& expected, const std::string& source) {
  for (const auto& [key, value] : expected) {
    const nlohmann::json& found = part_of(section, key);
    if (!found.is_null() && found != value) refuse_part(name + "." + key, found, source, value.dump());
  }
}

// Text beside a word that must become a token of its own is not looked for. (Nor are special ones, which captions have no reason to name,
// but for start, end and what else a kind of tokenizer knows.)
inline void check_added_tokens(const nlohmann::json& json, const std::string& source) {
  for (const nlohmann::json& token : part_of(json, "added_tokens")) {
    if (part_of(token, "special") == false) refuse_part("added_tokens", token, source, "special ones");
  }
}

inline std::int32_t token_id(const std::string& token, const nlohmann::json& id, const std::string& source) {
  constexpr std::int64_t kMost = std::int64_t{1} << 24;
  if (id.is_number_integer() && id >= 0 && id < kMost) return id.get<std::int32_t>();
  throw FileError("token '" + token + "' has the id " + shown(id) + "; " + source + "; ids are whole numbers from 0 on, below " +
                  std::to_string(kMost));
}

inline TokenFrame template_frame(const nlohmann::json& processor, const std::string& source) {
  const nlohmann::json &parts = processor.at("single"), &tokens = processor.at("special_tokens");
  const std::size_t n = parts.size();
  const auto id = [&](std::size_t i) {
    const auto name = parts.at(i).at("SpecialToken").at("id").get<std::string>();
    return token_id(name, tokens.at(name).at("ids").at(0), source);
  };
  const bool framed = (n == 2 || n == 3) && parts.at(n - 2).contains("Sequence") && parts.at(n - 1).contains("SpecialToken") &&
                      (n == 2 || parts.at(0).contains("SpecialToken"));
  if (!framed) refuse_part("post_processor.single", parts, source, "[start] $A end");
  return {n == 3 ? id(0) : -1, id(n - 1)};
}

// Nothing where the file does not say.
inline std::optional<TokenFrame> frame_of(const nlohmann::json& json, const std::string& source) {
  std::optional<TokenFrame> out;
  for (const nlohmann::json* step : steps_of(part_of(json, "post_processor"), "processors")) {
    if (is_step(*step, "ByteLevel")) continue;  // moves offsets, which nobody asks for
    if (!out.has_value() && is_step(*step, "TemplateProcessing")) {
      out = template_frame(*step, source);
    } else if (!out.has_value() && (is_step(*step, "RobertaProcessing") || is_step(*step, "BertProcessing"))) {
      const nlohmann::json &start = step->at("cls"), &end = step->at("sep");
      out = TokenFrame{token_id("cls", start.at(1), source), token_id("sep", end.at(1), source)};
    } else {
      refuse_part("post_processor", *step, source, "one of TemplateProcessing, RobertaProcessing, BertProcessing");
    }
  }
  return out;
}

}  // namespace twinlens
