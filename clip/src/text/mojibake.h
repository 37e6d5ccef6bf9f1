#pragma once
// Repair of text that was decoded by the wrong encoding ("schÃ¶n" for "schön"), as ftfy 6 does it.

#include <string>
#include <string_view>

namespace twinlens {

// ftfy.fix_encoding: UTF-8 that was read as one of ten single-byte encodings is read again, also within otherwise good text, also several
// layers of it. Text that does not look garbled is left alone.
std::u32string fix_encoding(std::u32string text);

// Control characters U+0080 to U+009F as Windows-1252 has them.
std::u32string fix_c1_controls(std::u32string text);

}  // namespace twinlens
