#pragma once
// ftfy.fix_text (Robyn Speer, ftfy 6) with its default settings, which open_clip and OpenAI run over every caption.

#include <string>

namespace twinlens {

// Line by line until nothing changes: HTML references with a semicolon (until a line has '<'), wrong decoding (mojibake.h), C1 controls,
// Latin ligatures, full- and half-width forms, curly quotes, line ends, terminal escapes, control characters, normal form C. Valid UTF-8 in
// and out.
std::string fix_text(std::string text);

}  // namespace twinlens
