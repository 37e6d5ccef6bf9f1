#include "clip/src/image/decoders.h"
#include "clip/src/image/exif.h"

#include "twinlens/core/file.h"
#include "twinlens/kernels/error.h"

namespace twinlens {

void check_size(std::int64_t width, std::int64_t height, std::string_view source, const DecodeOptions& options) {
  const std::string size = std::to_string(width) + " x " + std::to_string(height);
  if (width < 1 || height < 1) throw FileError("the picture is empty (" + size + "); " + std::string(source) + "; replace the file");
  if (options.max_pixels > 0 && width > options.max_pixels / height) {
    throw FileError("the picture has " + size + " pixels, more than " + std::to_string(options.max_pixels) + "; " + std::string(source) +
                    "; shrink the file or raise --max-image-pixels");
  }
}

void throw_damaged(std::string_view format, std::string_view reason, std::string_view source) {
  throw FileError("damaged " + std::string(format) + " (" + std::string(reason) + "); " + std::string(source) +
                  "; replace the file or leave it out");
}

std::vector<std::uint8_t> on_white(const std::uint8_t* pixels, std::int64_t count, int channels) {
  std::vector<std::uint8_t> rgb(static_cast<std::size_t>(count * 3));
  const bool gray = channels <= 2, has_alpha = channels % 2 == 0;
  std::uint8_t* out = rgb.data();
  for (std::int64_t i = 0; i < count; ++i, pixels += channels, out += 3) {
    const std::uint32_t alpha = has_alpha ? pixels[channels - 1] : 255;
    for (int c = 0; c < 3; ++c) {
      const std::uint32_t value = pixels[gray ? 0 : c];
      out[c] = static_cast<std::uint8_t>((value * alpha + 255 * (255 - alpha) + 127) / 255);
    }
  }
  return rgb;
}

namespace {

Image decode_as_stored(std::string_view bytes, std::string_view source, const DecodeOptions& options) {
  if (bytes.empty()) throw FileError("the file is empty; " + std::string(source) + "; replace the file or leave it out");
#if defined(TWINLENS_WITH_JPEG)
  if (bytes.starts_with("\xFF\xD8\xFF")) return decode_jpeg(bytes, source, options);
#endif
  if (bytes.starts_with("RIFF") && bytes.substr(0, 12).ends_with("WEBP")) {
#if defined(TWINLENS_WITH_WEBP)
    return decode_webp(bytes, source, options);
#else
    throw FileError("WebP cannot be read by this build; " + std::string(source) + "; install libwebp and build again, or convert the file");
#endif
  }
  if (is_pnm(bytes)) return decode_pnm(bytes, source, options);
  return decode_stb(bytes, source, options);
}

}  // namespace

Image decode_image(std::string_view bytes, std::string_view source, const DecodeOptions& options) {
  Image image = decode_as_stored(bytes, source, options);
  return options.exif_orientation ? upright(std::move(image), exif_orientation(bytes)) : image;
}

Image read_image(const std::string& path, const DecodeOptions& options) { return decode_image(read_file_or_pipe(path), path, options); }

std::string image_formats() {
  std::string out;
#if defined(TWINLENS_WITH_JPEG)
  out += "JPEG (libjpeg)";
#else
  out += "JPEG (stb_image)";
#endif
#if defined(TWINLENS_WITH_WEBP)
  out += ", WebP (libwebp)";
#endif
  return out + ", PNG, BMP, GIF, TGA, PSD (stb_image), PNM";
}

}  // namespace twinlens
