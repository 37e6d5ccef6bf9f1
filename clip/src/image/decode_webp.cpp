#include <webp/decode.h>

#include "clip/src/image/decoders.h"

namespace twinlens {

Image decode_webp(std::string_view bytes, std::string_view source, const DecodeOptions& options) {
  const auto* data = reinterpret_cast<const std::uint8_t*>(bytes.data());
  WebPBitstreamFeatures features{};
  if (WebPGetFeatures(data, bytes.size(), &features) != VP8_STATUS_OK) throw_damaged("WebP", "no valid header", source);
  check_size(features.width, features.height, source, options);
  if (features.has_animation != 0) throw_damaged("WebP", "animations are not supported", source);
  const int channels = features.has_alpha != 0 ? 4 : 3;
  const int stride = features.width * channels;
  std::vector<std::uint8_t> pixels(static_cast<std::size_t>(stride) * static_cast<std::size_t>(features.height));
  const auto* decoded = channels == 4 ? WebPDecodeRGBAInto(data, bytes.size(), pixels.data(), pixels.size(), stride)
                                      : WebPDecodeRGBInto(data, bytes.size(), pixels.data(), pixels.size(), stride);
  if (decoded == nullptr) throw_damaged("WebP", "data cut off or invalid", source);
  Image image{features.width, features.height, {}};
  image.rgb = channels == 4 ? on_white(pixels.data(), image.width * image.height, 4) : std::move(pixels);
  return image;
}

}  // namespace twinlens
