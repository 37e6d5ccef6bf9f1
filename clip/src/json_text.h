#pragma once
// JSON of what users have named: bytes that are not UTF-8 (a path's, say) become U+FFFD instead of an error.

#include <nlohmann/json.hpp>
#include <string>

namespace twinlens {

inline std::string json_text(const nlohmann::ordered_json& json, int indent = -1) {
  return json.dump(indent, ' ', false, nlohmann::ordered_json::error_handler_t::replace);
}

}  // namespace twinlens
