#pragma once
// One decoder a format. All return pixels as RGB on white (image.h) and throw FileError naming `source`.

#include <string_view>

#include "twinlens/clip/image.h"

namespace twinlens {

// Throws FileError when the header promises more pixels than allowed or none at all.
void check_size(std::int64_t width, std::int64_t height, std::string_view source, const DecodeOptions& options);
[[noreturn]] void throw_damaged(std::string_view format, std::string_view reason, std::string_view source);

// count pixels of gray, gray + alpha, RGB or RGB + alpha to RGB on white.
std::vector<std::uint8_t> on_white(const std::uint8_t* pixels, std::int64_t count, int channels);

Image decode_jpeg(std::string_view bytes, std::string_view source, const DecodeOptions& options);
Image decode_webp(std::string_view bytes, std::string_view source, const DecodeOptions& options);
// Whether it is of the family of PBM, PGM and PPM, in bytes or plain text.
bool is_pnm(std::string_view bytes);
Image decode_pnm(std::string_view bytes, std::string_view source, const DecodeOptions& options);
Image decode_stb(std::string_view bytes, std::string_view source, const DecodeOptions& options);

}  // namespace twinlens
