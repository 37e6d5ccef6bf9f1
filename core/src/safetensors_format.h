#pragma once
// Words of the safetensors format that reading and writing share. Private to core.

#include <optional>
#include <string_view>

#include "twinlens/kernels/dtype.h"

namespace twinlens {

struct FileDType {
  unsigned bits;
  int order;  // by alignment; writers put the highest first
};
// What the format knows by this name ("BF16"); nothing for other names.
std::optional<FileDType> file_dtype(std::string_view name);
const char* file_name_of(DType t);

// Well-formed UTF-8 by table 3-7 of the Unicode standard: no overlong forms, no surrogates, nothing above U+10FFFF.
bool is_utf8(std::string_view text);

}  // namespace twinlens
