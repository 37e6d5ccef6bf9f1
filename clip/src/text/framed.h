#pragma once
// [start, body, end] within a context length; what all tokenizers share.

#include <cstdint>
#include <vector>

#include "twinlens/clip/tokenizer.h"

namespace twinlens {

// The body is cut so that the end fits. start -1: none. Throws ConfigError when there is no room for start and end.
Tokens framed(std::vector<std::int32_t> body, std::int64_t context_length, std::int32_t start, std::int32_t end);

}  // namespace twinlens
