#include "clip/src/png.h"

#include <vector>

#if defined(__GNUC__)
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wmissing-field-initializers"
#pragma GCC diagnostic ignored "-Wconversion"
#pragma GCC diagnostic ignored "-Wunused-function"
#endif
#define STB_IMAGE_WRITE_STATIC
#define STB_IMAGE_WRITE_IMPLEMENTATION
#include <stb/stb_image_write.h>
#if defined(__GNUC__)
#pragma GCC diagnostic pop
#endif

namespace twinlens {
namespace {

std::string base64(const std::vector<unsigned char>& bytes) {
  static constexpr char kAlphabet[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
  std::string out;
  out.reserve((bytes.size() + 2) / 3 * 4);
  for (std::size_t i = 0; i < bytes.size(); i += 3) {
    const std::size_t left = bytes.size() - i;
    const unsigned v =
        (unsigned{bytes[i]} << 16) | (left > 1 ? unsigned{bytes[i + 1]} << 8 : 0U) | (left > 2 ? unsigned{bytes[i + 2]} : 0U);
    out += kAlphabet[v >> 18];
    out += kAlphabet[(v >> 12) & 63U];
    out += left > 1 ? kAlphabet[(v >> 6) & 63U] : '=';
    out += left > 2 ? kAlphabet[v & 63U] : '=';
  }
  return out;
}

}  // namespace

std::string png_data_uri(const Image& image) {
  std::vector<unsigned char> bytes;
  const auto append = [](void* context, void* data, int size) {
    auto* out = static_cast<std::vector<unsigned char>*>(context);
    const auto* p = static_cast<unsigned char*>(data);
    out->insert(out->end(), p, p + size);
  };
  stbi_write_png_to_func(append, &bytes, static_cast<int>(image.width), static_cast<int>(image.height), 3, image.rgb.data(),
                         static_cast<int>(image.width) * 3);
  return "data:image/png;base64," + base64(bytes);
}

}  // namespace twinlens
