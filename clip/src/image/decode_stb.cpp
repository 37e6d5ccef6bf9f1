// The one file that includes stb_image.
#define STB_IMAGE_IMPLEMENTATION
#define STB_IMAGE_STATIC  // an application that has stb_image too keeps its own
#define STBI_NO_STDIO
#define STBI_NO_HDR
#define STBI_NO_LINEAR
#define STBI_NO_PIC
#include <algorithm>
#include <cctype>
#include <cstdlib>
#include <limits>
#include <memory>
#include <stb_image.h>
#include <zlib.h>

#include "clip/src/image/decoders.h"

#include "twinlens/kernels/error.h"

namespace twinlens {

namespace {

// Of a PNG, from its header; 0 for anything else. (What is too large for stb_image is of an unknown type to it.)
std::int64_t png_side(std::string_view bytes, std::size_t at) {
  if (bytes.size() < 24 || !bytes.starts_with("\x89PNG\r\n\x1A\n") || bytes.substr(12, 4) != "IHDR") return 0;
  std::int64_t side = 0;
  for (std::size_t i = at; i < at + 4; ++i) side = side * 256 + static_cast<unsigned char>(bytes[i]);
  return side;
}

// `count` bytes at `at`, the lowest first; 0 where the file has ended.
std::int64_t little_endian(std::string_view bytes, std::size_t at, std::size_t count) {
  std::int64_t n = 0;
  for (std::size_t i = count; i-- > 0;) n = n * 256 + (at + i < bytes.size() ? static_cast<unsigned char>(bytes[at + i]) : 0);
  return n;
}

bool is_bmp(std::string_view bytes) { return bytes.starts_with("BM"); }
constexpr std::size_t kBmpHeader = 14, kBmpBits = 28, kBmpCompression = 30;

bool bmp_is_packed(std::string_view bytes) {
  const std::int64_t compression = little_endian(bytes, kBmpCompression, 4);
  return little_endian(bytes, kBmpHeader, 4) >= 40 && compression != 0 && compression != 3;
}

// How long a picture that is not packed must be; 0 of others. stb_image takes what is missing from memory that nobody has written.
std::int64_t least_size(std::string_view bytes, std::int64_t width, std::int64_t height, int channels) {
  if (is_bmp(bytes)) {
    if (little_endian(bytes, kBmpHeader, 4) < 40 || bmp_is_packed(bytes)) return 0;
    const std::int64_t row = (width * little_endian(bytes, kBmpBits, 2) + 31) / 32 * 4;
    return little_endian(bytes, 10, 4) + row * height;
  }
  if (bytes.starts_with("P5") || bytes.starts_with("P6")) {
    const auto* data = reinterpret_cast<const stbi_uc*>(bytes.data());
    constexpr std::int64_t kShortestHeader = 9;  // "P6 1 1 1" and a blank
    return kShortestHeader + width * height * channels * (stbi_is_16_bit_from_memory(data, static_cast<int>(bytes.size())) != 0 ? 2 : 1);
  }
  const bool known =
      bytes.starts_with("\x89PNG") || bytes.starts_with("GIF8") || bytes.starts_with("8BPS") || bytes.starts_with("\xFF\xD8");
  const std::int64_t type = little_endian(bytes, 2, 1);  // of a TGA, which has no mark of its own
  if (known || type < 1 || type > 3) return 0;
  const std::int64_t colors = little_endian(bytes, 5, 2) * ((little_endian(bytes, 7, 1) + 7) / 8);
  return 18 + little_endian(bytes, 0, 1) + colors + width * height * ((little_endian(bytes, 16, 1) + 7) / 8);
}

// The checksums of the parts of a PNG that make its pixels, of which stb_image reads none.
void check_png(std::string_view bytes, std::string_view source) {
  constexpr std::size_t kStart = 8, kFrame = 12;  // length, name and checksum
  for (std::size_t at = kStart; at + kFrame <= bytes.size();) {
    const auto number = [&](std::size_t i) {
      std::uint32_t n = 0;
      for (std::size_t k = i; k < i + 4; ++k) n = n << 8 | static_cast<unsigned char>(bytes[k]);
      return n;
    };
    const std::uint32_t length = number(at);
    if (length > bytes.size() - at - kFrame) return;  // cut off: stb_image says so
    const std::string_view part = bytes.substr(at + 4, 4 + std::size_t{length});
    const bool is_needed = (part[0] & 0x20) == 0;
    if (is_needed && crc32(0, reinterpret_cast<const Bytef*>(part.data()), static_cast<uInt>(part.size())) != number(at + 8 + length)) {
      std::string name(part.substr(0, 4));  // (may be what is damaged)
      std::replace_if(
          name.begin(), name.end(), [](unsigned char c) { return std::isalpha(c) == 0; }, '?');
      throw_damaged("PNG", "the checksum of its part " + name + " is wrong", source);
    }
    if (part.substr(0, 4) == "IEND") return;
    at += kFrame + length;
  }
}

// Whether the first frame of a GIF is there, up to the empty block that ends it. stb_image takes what is missing for pixels.
bool gif_frame_is_whole(std::string_view bytes) {
  const auto byte = [&](std::size_t at) { return at < bytes.size() ? std::size_t{static_cast<unsigned char>(bytes[at])} : 0; };
  const auto palette_size = [&](std::size_t flags) { return (flags & 0x80) != 0 ? std::size_t{6} << (flags & 7) : 0; };
  constexpr std::size_t kHeader = 13, kFrame = 0x2C, kExtension = 0x21;
  for (std::size_t at = kHeader + palette_size(byte(10)); at < bytes.size();) {
    const std::size_t kind = byte(at);
    if (kind != kFrame && kind != kExtension) return true;  // the end, or nothing known: stb_image says so
    at += kind == kFrame ? 11 + palette_size(byte(at + 9)) : 2;
    for (std::size_t length = 1; length != 0; at += 1 + length) {
      if (at >= bytes.size()) return false;
      length = byte(at);
    }
    if (kind == kFrame) return true;
  }
  return false;
}

std::string reason() {
  const char* why = stbi_failure_reason();
  return why == nullptr || *why == '\0' ? "it ends early" : why;
}

}  // namespace

Image decode_stb(std::string_view bytes, std::string_view source, const DecodeOptions& options) {
  if (bytes.size() > static_cast<std::size_t>(std::numeric_limits<int>::max())) throw_damaged("picture", "more than 2 GB", source);
  const auto* data = reinterpret_cast<const stbi_uc*>(bytes.data());
  const int size = static_cast<int>(bytes.size());
  int width = 0, height = 0, channels = 0;
  if (stbi_info_from_memory(data, size, &width, &height, &channels) == 0) {
    const bool known =
        bytes.starts_with("\x89PNG") || bytes.starts_with("GIF8") || bytes.starts_with("BM") || bytes.starts_with("\xFF\xD8");
    const std::int64_t png_width = png_side(bytes, 16), png_height = png_side(bytes, 20);
    if (png_width > 0 && png_height > 0) {
      check_size(png_width, png_height, source, options);
      const std::string pixels = std::to_string(png_width) + " x " + std::to_string(png_height) + " pixels";
      throw_damaged("picture", pixels + " are promised and cannot be read", source);
    }
    if (is_bmp(bytes) && bmp_is_packed(bytes))
      throw FileError("a packed BMP (by run lengths, mostly) is not read; " + std::string(source) + "; save it as PNG");
    if (known) throw_damaged("picture", reason(), source);
    throw FileError("not a picture of a known format; " + std::string(source) + "; this build reads " + image_formats());
  }
  const std::int64_t rows = std::abs(std::int64_t{height});  // a BMP that begins with its first row has fewer than 0
  check_size(width, rows, source, options);
  if (static_cast<std::int64_t>(bytes.size()) < least_size(bytes, width, rows, channels)) throw_damaged("picture", "it ends early", source);
  if (bytes.starts_with("\x89PNG")) check_png(bytes, source);
  if (bytes.starts_with("GIF8") && !gif_frame_is_whole(bytes)) throw_damaged("picture", "it ends early", source);
  // The fourth byte of a pixel is nothing, in the oldest header of a BMP.
  const bool without_alpha =
      is_bmp(bytes) && little_endian(bytes, kBmpHeader, 4) == 40 && little_endian(bytes, kBmpCompression, 4) == 0 && channels == 4;
  const int wanted = without_alpha ? 3 : 0;
  const std::unique_ptr<stbi_uc, void (*)(void*)> pixels(stbi_load_from_memory(data, size, &width, &height, &channels, wanted),
                                                         stbi_image_free);
  if (pixels == nullptr) throw_damaged("picture", reason(), source);
  return {width, height, on_white(pixels.get(), std::int64_t{width} * height, without_alpha ? 3 : channels)};
}

}  // namespace twinlens
