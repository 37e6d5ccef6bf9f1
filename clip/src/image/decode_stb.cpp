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

Image decode_stb(std::string_view bytes, std::string_view source, const DecodeOptions& options) {
  if (bytes.size() > static_cast<std::size_t>(std::numeric_limits<int>::max())) throw_damaged("picture", "more than 2 GB", source);
  const auto* data = reinterpret_cast<const stbi_uc*>(bytes.data());
  const int size = static_cast<int>(bytes.size());
  int width = 0, height = 0, channels = 0;
  if (stbi_info_from_memory(data, size, &width, &height, &channels) == 0) {
    const bool known =
        bytes.starts_with("\x89PNG") || bytes.starts_with("GIF8") || bytes.starts_with("BM") || bytes.starts_with("\xFF\xD8");
    if (known) throw_damaged("picture", stbi_failure_reason(), source);
    throw FileError("not a picture of a known format; " + std::string(source) + "; this build reads " + image_formats());
  }
  check_size(width, height, source, options);
  const std::unique_ptr<stbi_uc, void (*)(void*)> pixels(stbi_load_from_memory(data, size, &width, &height, &channels, 0), stbi_image_free);
  if (pixels == nullptr) throw_damaged("picture", stbi_failure_reason(), source);
  return {width, height, on_white(pixels.get(), std::int64_t{width} * height, channels)};
}

}  // namespace twinlens
