#include <memory>
#include <webp/decode.h>
#include <webp/demux.h>

#include "clip/src/image/decoders.h"

namespace twinlens {

namespace {

// The first frame of an animation on its canvas, of which it may be a part.
Image first_frame(std::string_view bytes, std::string_view source, const DecodeOptions& options) {
  WebPAnimDecoderOptions how;
  const WebPData all{reinterpret_cast<const std::uint8_t*>(bytes.data()), bytes.size()};
  if (WebPAnimDecoderOptionsInit(&how) == 0) throw_damaged("WebP", "another version of libwebpdemux is installed", source);
  const std::unique_ptr<WebPAnimDecoder, void (*)(WebPAnimDecoder*)> decoder(WebPAnimDecoderNew(&all, &how), WebPAnimDecoderDelete);
  WebPAnimInfo info{};
  std::uint8_t* canvas = nullptr;  // RGBA, the decoder's
  int end = 0;
  if (decoder == nullptr || WebPAnimDecoderGetInfo(decoder.get(), &info) == 0) throw_damaged("WebP", "data cut off or invalid", source);
  check_size(info.canvas_width, info.canvas_height, source, options);
  if (WebPAnimDecoderGetNext(decoder.get(), &canvas, &end) == 0) throw_damaged("WebP", "data cut off or invalid", source);
  const std::int64_t width = info.canvas_width, height = info.canvas_height;
  return {width, height, on_white(canvas, width * height, 4)};
}

}  // namespace

Image decode_webp(std::string_view bytes, std::string_view source, const DecodeOptions& options) {
  const auto* data = reinterpret_cast<const std::uint8_t*>(bytes.data());
  WebPBitstreamFeatures features{};
  if (WebPGetFeatures(data, bytes.size(), &features) != VP8_STATUS_OK) throw_damaged("WebP", "no valid header", source);
  check_size(features.width, features.height, source, options);
  if (features.has_animation != 0) return first_frame(bytes, source, options);
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
