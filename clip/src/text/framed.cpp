#include "clip/src/text/framed.h"

#include "twinlens/kernels/error.h"

namespace twinlens {

Tokens framed(std::vector<std::int32_t> body, std::int64_t context_length, std::int32_t start, std::int32_t end) {
  const std::int64_t around = start < 0 ? 1 : 2;
  if (context_length < around) {
    throw ConfigError("context length " + std::to_string(context_length) + " is too short; tokenize; use at least " +
                      (around == 2 ? "2 (start and end)" : "1 (the end)"));
  }
  Tokens tokens;
  tokens.ids = std::move(body);
  const auto room = static_cast<std::size_t>(context_length - around);
  tokens.truncated = tokens.ids.size() > room;
  if (tokens.truncated) tokens.ids.resize(room);
  if (start >= 0) tokens.ids.insert(tokens.ids.begin(), start);
  tokens.ids.push_back(end);
  return tokens;
}

}  // namespace twinlens
