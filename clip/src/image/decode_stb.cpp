// The one file that includes stb_image.
#define STB_IMAGE_IMPLEMENTATION
#define STB_IMAGE_STATIC  // an application that has stb_image too keeps its own
#define STBI_NO_STDIO
#define STBI_NO_HDR
#define STBI_NO_LINEAR
#define STBI_NO_PIC
#define STBI_NO_PNM  // it scales no samples: decode_pnm.cpp
#include <algorithm>
#include <cctype>
#include <cstdlib>
#include <cstring>
#include <limits>
#include <memory>
#include <stb_image.h>
#include <zlib.h>

#include "clip/src/image/decoders.h"

#include "twinlens/kernels/error.h"

namespace twinlens {

namespace {

// Four bytes at `at`, the highest first; 0 for those beyond the end.
std::uint32_t big_endian(std::string_view bytes, std::size_t at) {
  std::uint32_t n = 0;
  for (std::size_t i = at; i < at + 4; ++i) n = n << 8 | (i < bytes.size() ? static_cast<unsigned char>(bytes[i]) : 0U);
  return n;
}

// Of a PNG, from its header; 0 for anything else. (What is too large for stb_image is of an unknown type to it.)
std::int64_t png_side(std::string_view bytes, std::size_t at) {
  if (bytes.size() < 24 || !bytes.starts_with("\x89PNG\r\n\x1A\n") || bytes.substr(12, 4) != "IHDR") return 0;
  return big_endian(bytes, at);
}

// `count` bytes at `at`, the lowest first; 0 where the file has ended.
std::int64_t little_endian(std::string_view bytes, std::size_t at, std::size_t count) {
  std::int64_t n = 0;
  for (std::size_t i = count; i-- > 0;) n = n * 256 + (at + i < bytes.size() ? static_cast<unsigned char>(bytes[at + i]) : 0);
  return n;
}

bool is_bmp(std::string_view bytes) { return bytes.starts_with("BM"); }
constexpr std::size_t kBmpPixels = 10, kBmpHeader = 14, kBmpCompression = 30;
constexpr std::int64_t kOldestHeader = 12;  // of OS/2, with sides of two bytes and colours of three

std::int64_t bmp_bits(std::string_view bytes) {
  return little_endian(bytes, little_endian(bytes, kBmpHeader, 4) == kOldestHeader ? 24 : 28, 2);
}

bool bmp_is_packed(std::string_view bytes) {
  const std::int64_t compression = little_endian(bytes, kBmpCompression, 4);
  return little_endian(bytes, kBmpHeader, 4) >= 40 && compression != 0 && compression != 3;
}

// A TGA has no mark of its own: it is one if nothing else.
bool is_tga_or_psd(std::string_view bytes) {
  return !is_bmp(bytes) && !bytes.starts_with("\x89PNG") && !bytes.starts_with("GIF8") && !bytes.starts_with("\xFF\xD8");
}
bool is_psd(std::string_view bytes) { return bytes.starts_with("8BPS"); }

// How long a picture must be: one that is not packed, whole; a PSD up to its pixels; 0 of others. stb_image takes what is missing from
// memory that nobody has written.
std::int64_t least_size(std::string_view bytes, std::int64_t width, std::int64_t height) {
  if (is_bmp(bytes)) return little_endian(bytes, kBmpPixels, 4) + (width * bmp_bits(bytes) + 31) / 32 * 4 * height;
  if (is_psd(bytes)) {
    std::int64_t at = 26;
    for (int part = 0; part < 3; ++part) at += 4 + std::int64_t{big_endian(bytes, static_cast<std::size_t>(at))};
    return at + 2;
  }
  const std::int64_t type = little_endian(bytes, 2, 1);
  if (!is_tga_or_psd(bytes) || type < 1 || type > 3) return 0;
  const std::int64_t colors = little_endian(bytes, 5, 2) * ((little_endian(bytes, 7, 1) + 7) / 8);
  return 18 + little_endian(bytes, 0, 1) + colors + width * height * ((little_endian(bytes, 16, 1) + 7) / 8);
}

// Pixels may name colours that the palette does not have; stb_image takes those from memory that nobody has written. So it is given the
// file with a palette of 256 colours, the added ones black, as libpng and Pillow have them. Empty where nothing is to be added.
constexpr std::size_t kColors = 256;

std::string png_with_all_colors(std::string_view bytes) {
  constexpr std::size_t kStart = 8, kFrame = 12;  // length, name and checksum
  for (std::size_t at = kStart; at + kFrame <= bytes.size();) {
    const std::size_t length = big_endian(bytes, at);
    if (length > bytes.size() - at - kFrame) return {};  // cut off: stb_image says so
    if (bytes.substr(at + 4, 4) == "PLTE") {
      if (length >= 3 * kColors || length % 3 != 0) return {};
      std::string out(bytes.substr(0, at));
      out.append(std::string_view("\0\0\3\0", 4)).append(bytes.substr(at + 4, 4 + length)).append(3 * kColors - length, '\0');
      return out.append(bytes.substr(at + 8 + length));
    }
    at += kFrame + length;
  }
  return {};
}

std::string bmp_with_all_colors(std::string_view bytes, std::string_view source) {
  if (bmp_bits(bytes) >= 16) return {};
  const std::int64_t header = little_endian(bytes, kBmpHeader, 4), pixels = little_endian(bytes, kBmpPixels, 4);
  const std::int64_t start = 14 + header, color = header == kOldestHeader ? 3 : 4;
  if (pixels < start + color) throw_damaged("picture", "its palette is missing", source);
  const auto colors = std::min<std::int64_t>((pixels - start) / color, kColors);
  // (stb_image takes the oldest header for 12 bytes longer than it is when it counts the colours, and leaves out the last four.)
  const std::int64_t moved = start + (header == kOldestHeader ? 12 : 0) + color * std::int64_t{kColors};
  if (pixels == moved) return {};
  std::string out(bytes.substr(0, static_cast<std::size_t>(start + colors * color)));
  out.resize(static_cast<std::size_t>(moved), '\0');
  for (std::size_t i = 0; i < 4; ++i) out[kBmpPixels + i] = static_cast<char>(moved >> (8 * i));
  return out.append(bytes.substr(static_cast<std::size_t>(pixels)));
}

// The checksums of the parts of a PNG that make its pixels, of which stb_image reads none.
void check_png(std::string_view bytes, std::string_view source) {
  constexpr std::size_t kStart = 8, kFrame = 12;  // length, name and checksum
  for (std::size_t at = kStart; at + kFrame <= bytes.size();) {
    const std::uint32_t length = big_endian(bytes, at);
    if (length > bytes.size() - at - kFrame) return;  // cut off: stb_image says so
    const std::string_view part = bytes.substr(at + 4, 4 + std::size_t{length});
    const bool is_needed = (part[0] & 0x20) == 0;
    if (is_needed &&
        crc32(0, reinterpret_cast<const Bytef*>(part.data()), static_cast<uInt>(part.size())) != big_endian(bytes, at + 8 + length)) {
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

using Pixels = std::unique_ptr<stbi_uc, void (*)(void*)>;

// A file from which stb_image takes what it needs. In a TGA by run lengths or a PSD it fills up what is missing: that it needed more shows
// only here. (It asks for blocks, but for the next one only when it needs a byte of it: never beyond the end of a whole picture.)
struct Reader {
  std::string_view left;
  bool ended = false;

  std::size_t take(int size) {
    ended = ended || left.empty();
    return std::min(static_cast<std::size_t>(size), left.size());
  }
  static int read(void* user, char* data, int size) {
    Reader& reader = *static_cast<Reader*>(user);
    const std::size_t count = reader.take(size);
    if (count > 0) std::memcpy(data, reader.left.data(), count);
    reader.left.remove_prefix(count);
    return static_cast<int>(count);
  }
  static void skip(void* user, int size) {
    Reader& reader = *static_cast<Reader*>(user);
    reader.left.remove_prefix(reader.take(size));
  }
  static int is_at_end(void* user) { return static_cast<Reader*>(user)->left.empty() ? 1 : 0; }
};
constexpr stbi_io_callbacks kReader = {Reader::read, Reader::skip, Reader::is_at_end};

// The pixels with as many channels as wanted, or all if 0.
Pixels load(std::string_view bytes, std::string_view source, int wanted, int& channels) {
  int width = 0, height = 0;
  if (is_tga_or_psd(bytes)) {
    Reader reader{bytes};
    Pixels pixels(stbi_load_from_callbacks(&kReader, &reader, &width, &height, &channels, wanted), stbi_image_free);
    if (reader.ended) throw_damaged("picture", "it ends early", source);
    return pixels;
  }
  const std::string mended = bytes.starts_with("\x89PNG") ? png_with_all_colors(bytes)
                             : is_bmp(bytes)              ? bmp_with_all_colors(bytes, source)
                                                          : std::string();
  if (!mended.empty()) bytes = mended;
  const auto* data = reinterpret_cast<const stbi_uc*>(bytes.data());
  return {stbi_load_from_memory(data, static_cast<int>(bytes.size()), &width, &height, &channels, wanted), stbi_image_free};
}

}  // namespace

Image decode_stb(std::string_view bytes, std::string_view source, const DecodeOptions& options) {
  constexpr std::size_t kMost = std::numeric_limits<int>::max() - 4 * kColors;  // which may be added
  if (bytes.size() > kMost) throw_damaged("picture", "more than 2 GB", source);
  if (is_bmp(bytes) && bmp_is_packed(bytes))
    throw FileError("a packed BMP (by run lengths, mostly) is not read; " + std::string(source) + "; save it as PNG");
  const auto* data = reinterpret_cast<const stbi_uc*>(bytes.data());
  const int size = static_cast<int>(bytes.size());
  int width = 0, height = 0, channels = 0;
  if (stbi_info_from_memory(data, size, &width, &height, &channels) == 0) {
    const std::int64_t png_width = png_side(bytes, 16), png_height = png_side(bytes, 20);
    if (png_width > 0 && png_height > 0) {
      check_size(png_width, png_height, source, options);
      const std::string pixels = std::to_string(png_width) + " x " + std::to_string(png_height) + " pixels";
      throw_damaged("picture", pixels + " are promised and cannot be read", source);
    }
    if (!is_tga_or_psd(bytes)) throw_damaged("picture", reason(), source);
    throw FileError("not a picture of a known format; " + std::string(source) + "; this build reads " + image_formats());
  }
  const std::int64_t rows = std::abs(std::int64_t{height});  // a BMP that begins with its first row has fewer than 0
  check_size(width, rows, source, options);
  if (static_cast<std::int64_t>(bytes.size()) < least_size(bytes, width, rows)) throw_damaged("picture", "it ends early", source);
  if (bytes.starts_with("\x89PNG")) check_png(bytes, source);
  if (bytes.starts_with("GIF8") && !gif_frame_is_whole(bytes)) throw_damaged("picture", "it ends early", source);
  // The fourth byte of a pixel is nothing, in the oldest header of a BMP.
  const bool without_alpha =
      is_bmp(bytes) && little_endian(bytes, kBmpHeader, 4) == 40 && little_endian(bytes, kBmpCompression, 4) == 0 && channels == 4;
  const int wanted = without_alpha ? 3 : 0;
  const Pixels pixels = load(bytes, source, wanted, channels);
  if (pixels == nullptr) throw_damaged("picture", reason(), source);
  return {width, rows, on_white(pixels.get(), std::int64_t{width} * rows, without_alpha ? 3 : channels)};
}

}  // namespace twinlens
