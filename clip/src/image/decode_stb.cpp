// The one file that includes stb_image.
#define STB_IMAGE_IMPLEMENTATION
#define STB_IMAGE_STATIC  // an application that has stb_image too keeps its own
#define STBI_NO_STDIO
#define STBI_NO_HDR
#define STBI_NO_LINEAR
#define STBI_NO_PIC
#include <limits>
#include <memory>
#include <stb_image.h>

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
    if (known) throw_damaged("picture", stbi_failure_reason(), source);
    throw FileError("not a picture of a known format; " + std::string(source) + "; this build reads " + image_formats());
  }
  check_size(width, height, source, options);
  const std::unique_ptr<stbi_uc, void (*)(void*)> pixels(stbi_load_from_memory(data, size, &width, &height, &channels, 0), stbi_image_free);
  if (pixels == nullptr) throw_damaged("picture", stbi_failure_reason(), source);
  return {width, height, on_white(pixels.get(), std::int64_t{width} * height, channels)};
}

}  // namespace twinlens
