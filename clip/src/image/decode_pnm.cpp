// PGM and PPM: gray and RGB, in bytes. (stb_image reads them, too, but as if every file's greatest value were 255.)
#include <algorithm>
#include <cmath>
#include <limits>

#include "clip/src/image/decoders.h"

#include "twinlens/kernels/error.h"

namespace twinlens {

namespace {

bool is_blank(char c) { return std::string_view(" \t\n\v\f\r").find(c) != std::string_view::npos; }

// The numbers of the header. A comment runs to the end of its line and stands for that end, within a number and behind the last one, too;
// so netpbm reads it.
struct Header {
  std::string_view bytes, source;
  std::size_t at = 2;  // behind the mark

  char next() {
    if (at < bytes.size() && bytes[at] == '#') at = bytes.find_first_of("\r\n", at);
    if (at >= bytes.size()) throw_damaged("PNM", "it ends early", source);
    return bytes[at++];
  }

  // Takes the one blank behind it, too.
  std::int64_t number() {
    char c = next();
    while (is_blank(c)) c = next();
    if (c < '0' || c > '9') throw_damaged("PNM", "not a number in its header", source);
    std::int64_t n = 0;
    for (; c >= '0' && c <= '9'; c = next()) {
      n = n * 10 + (c - '0');
      if (n > std::numeric_limits<std::int32_t>::max()) throw_damaged("PNM", "a number of its header is too large", source);
    }
    if (!is_blank(c)) throw_damaged("PNM", "not a number in its header", source);
    return n;
  }
};

// `samples` of one byte, or of two with the high one first, to 0..255. 16 bits keep the high byte, as those of all formats do (image.h);
// Pillow rounds them in P6 and cuts them at 255 in P5. What has another greatest value is rounded as Pillow rounds P6, to even.
std::vector<std::uint8_t> to_bytes(std::string_view samples, std::int64_t greatest) {
  if (greatest == 255) return {samples.begin(), samples.end()};
  const std::size_t size = greatest > 255 ? 2 : 1;
  std::vector<std::uint8_t> out(samples.size() / size);
  for (std::size_t i = 0; i < out.size(); ++i) {
    const auto high = static_cast<unsigned char>(samples[size * i]), low = static_cast<unsigned char>(samples[size * (i + 1) - 1]);
    const int value = size == 2 ? high * 256 + low : low;
    const double part = std::min(1.0, value / static_cast<double>(greatest));
    out[i] = greatest == 65535 ? high : static_cast<std::uint8_t>(std::nearbyint(part * 255));
  }
  return out;
}

}  // namespace

bool is_pnm(std::string_view bytes) {
  return bytes.size() > 2 && bytes[0] == 'P' && bytes[1] >= '1' && bytes[1] <= '6' && (is_blank(bytes[2]) || bytes[2] == '#');
}

Image decode_pnm(std::string_view bytes, std::string_view source, const DecodeOptions& options) {
  const char kind = bytes[1];
  if (kind == '1' || kind == '4') throw FileError("a PBM (black and white) is not read; " + std::string(source) + "; save it as PNG");
  if (kind < '5') throw FileError("a plain-text PNM is not read; " + std::string(source) + "; save it as PNG");
  Header header{bytes, source};
  const std::int64_t width = header.number(), height = header.number(), greatest = header.number();
  if (greatest < 1 || greatest > 65535)
    throw_damaged("PNM", "its greatest value is " + std::to_string(greatest) + ", not 1 to 65535", source);
  check_size(width, height, source, options);
  const int channels = kind == '5' ? 1 : 3;
  const std::int64_t pixel = channels * (greatest > 255 ? 2 : 1);
  const std::string_view data = bytes.substr(header.at);
  if (width > static_cast<std::int64_t>(data.size()) / pixel / height) throw_damaged("PNM", "it ends early", source);
  const std::vector<std::uint8_t> samples = to_bytes(data.substr(0, static_cast<std::size_t>(width * height * pixel)), greatest);
  return {width, height, on_white(samples.data(), width * height, channels)};
}

}  // namespace twinlens
