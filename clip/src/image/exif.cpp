#include "clip/src/image/exif.h"

#include <cstdint>

namespace twinlens {
namespace {

// `n` bytes at `at` as a number; 0 where the data ends before.
std::uint32_t number(std::string_view data, std::size_t at, std::size_t n, bool little) {
  if (at > data.size() || data.size() - at < n) return 0;
  std::uint32_t value = 0;
  for (std::size_t i = 0; i < n; ++i) value = value << 8 | static_cast<unsigned char>(data[at + (little ? n - 1 - i : i)]);
  return value;
}

// A TIFF header and the first directory of tags.
int orientation_of_tiff(std::string_view tiff) {
  constexpr std::uint32_t kTag = 0x0112, kShort = 3;
  if (tiff.starts_with(std::string_view("Exif\0\0", 6))) tiff.remove_prefix(6);
  const bool little = tiff.starts_with("II");
  if (!little && !tiff.starts_with("MM")) return 1;
  const std::size_t directory = number(tiff, 4, 4, little);
  const std::uint32_t entries = number(tiff, directory, 2, little);
  for (std::uint32_t k = 0; k < entries; ++k) {
    const std::size_t at = directory + 2 + std::size_t{12} * k;
    if (at + 12 > tiff.size()) break;
    if (number(tiff, at, 2, little) != kTag || number(tiff, at + 2, 2, little) != kShort) continue;
    const auto value = static_cast<int>(number(tiff, at + 8, 2, little));
    return value >= 1 && value <= 8 ? value : 1;
  }
  return 1;
}

std::string_view exif_of_jpeg(std::string_view file) {
  for (std::size_t at = 2; at + 4 <= file.size() && file[at] == '\xFF';) {
    const auto marker = static_cast<unsigned char>(file[at + 1]);
    if (marker == 0xFF) {  // padding
      ++at;
      continue;
    }
    if (marker == 0xDA || marker == 0xD9) break;  // the picture begins, or ends
    const std::size_t length = number(file, at + 2, 2, false);
    if (length < 2) break;
    const std::string_view segment = file.substr(at + 4, length - 2);
    if (marker == 0xE1 && segment.starts_with(std::string_view("Exif\0\0", 6))) return segment;
    at += 2 + length;
  }
  return {};
}

std::string_view exif_of_png(std::string_view file) {
  for (std::size_t at = 8; at + 12 <= file.size();) {
    const std::size_t length = number(file, at, 4, false);
    if (file.substr(at + 4, 4) == "eXIf") return file.substr(at + 8, length);
    at += 12 + length;
  }
  return {};
}

std::string_view exif_of_webp(std::string_view file) {
  for (std::size_t at = 12; at + 8 <= file.size();) {
    const std::size_t length = number(file, at + 4, 4, true);
    if (file.substr(at, 4) == "EXIF") return file.substr(at + 8, length);
    at += 8 + length + length % 2;
  }
  return {};
}

}  // namespace

int exif_orientation(std::string_view file) {
  if (file.starts_with("\xFF\xD8")) return orientation_of_tiff(exif_of_jpeg(file));
  if (file.starts_with("\x89PNG")) return orientation_of_tiff(exif_of_png(file));
  if (file.starts_with("RIFF") && file.substr(0, 12).ends_with("WEBP")) return orientation_of_tiff(exif_of_webp(file));
  return 1;
}

Image upright(Image image, int orientation) {
  if (orientation <= 1 || orientation > 8) return image;
  // 5 to 8 exchange the axes; each is then mirrored or not.
  const bool turned = orientation >= 5, mirror_x = orientation == 2 || orientation == 3 || orientation == 7 || orientation == 8,
             mirror_y = orientation == 3 || orientation == 4 || orientation == 6 || orientation == 7;
  Image out{turned ? image.height : image.width,           turned ? image.width : image.height,
            std::vector<std::uint8_t>(image.rgb.size()),   image.scale,
            turned ? image.full_height : image.full_width, turned ? image.full_width : image.full_height};
  const auto added = [&](std::int64_t size, std::int64_t full) {
    return static_cast<float>(static_cast<double>(size) - image.scale * static_cast<double>(full));
  };
  if (image.scale < 1.0 && (turned ? mirror_y : mirror_x)) out.left = added(out.width, out.full_width);
  if (image.scale < 1.0 && (turned ? mirror_x : mirror_y)) out.top = added(out.height, out.full_height);
  std::uint8_t* to = out.rgb.data();
  for (std::int64_t r = 0; r < out.height; ++r) {
    for (std::int64_t c = 0; c < out.width; ++c, to += 3) {
      const std::int64_t x = turned ? r : c, y = turned ? c : r;
      const std::int64_t from = (mirror_y ? image.height - 1 - y : y) * image.width + (mirror_x ? image.width - 1 - x : x);
      for (int k = 0; k < 3; ++k) to[k] = image.rgb[static_cast<std::size_t>(from * 3 + k)];
    }
  }
  return out;
}

}  // namespace twinlens
