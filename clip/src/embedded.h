#pragma once
// Files of clip/data that are part of the library (clip/data/README.md). The bytes live as long as the program.

#include <cstdint>
#include <string>
#include <string_view>

namespace twinlens {

enum class Embedded { bpe_vocabulary_gz, html_entities, mojibake, templates_openai, templates_simple };

std::string_view embedded(Embedded file);

// Unpacks gzip data held in memory. Throws FileError naming `what` when it is damaged.
std::string gunzip(std::string_view packed, std::string_view what);
// No more of it than holds its first `lines` lines; what comes behind them is neither unpacked nor checked.
std::string gunzip_lines(std::string_view packed, std::int64_t lines, std::string_view what);

}  // namespace twinlens
