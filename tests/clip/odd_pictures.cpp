// Pictures that are rare or damaged in ways that stb_image does not notice. All are made here, byte by byte.
#include <array>
#include <catch2/catch.hpp>
#include <zlib.h>

#include "twinlens/clip/image.h"
#include "twinlens/kernels/error.h"

namespace twinlens {
namespace {

using Bytes = std::vector<std::uint8_t>;

std::string text(const Bytes& bytes) { return {bytes.begin(), bytes.end()}; }
std::string little(std::uint32_t n, int bytes) {
  std::string out;
  for (int i = 0; i < bytes; ++i, n >>= 8) out += static_cast<char>(n);
  return out;
}
std::string big(std::uint32_t n, int bytes) {
  const std::string out = little(n, bytes);
  return {out.rbegin(), out.rend()};
}
Bytes pixels(const std::string& file) { return decode_image(file, "odd", {1000}).rgb; }

void every_cut_is_refused(const std::string& file) {
  REQUIRE_NOTHROW(pixels(file));
  for (std::size_t size = 0; size < file.size(); ++size) {
    CAPTURE(size);
    REQUIRE_THROWS_AS(pixels(file.substr(0, size)), FileError);
  }
}

TEST_CASE("PNM: samples are scaled by the greatest value, as Pillow scales them") {
  CHECK(pixels("P6 1 1 255\n" + text({1, 2, 200})) == Bytes{1, 2, 200});
  CHECK(pixels("P6 1 1 100\n" + text({50, 100, 200})) == Bytes{128, 255, 255});
  CHECK(pixels("P5 4 1 10\n" + text({1, 3, 5, 7})) == Bytes{26, 26, 26, 76, 76, 76, 128, 128, 128, 178, 178, 178});  // to even
  CHECK(pixels("P5 1 2 1023\n" + text({1, 0x34, 3, 0xFF})) == Bytes{77, 77, 77, 255, 255, 255});
  // 16 bits, the high byte first, keep it.
  CHECK(pixels("P6 1 1 65535\n" + text({0x12, 0xFF, 0x80, 0, 0xFF, 0xFF})) == Bytes{0x12, 0x80, 0xFF});
  CHECK(pixels("P5 1 1 65535\n" + text({0x12, 0x34})) == Bytes{0x12, 0x12, 0x12});
}

TEST_CASE("PNM: the header's blanks and comments") {
  CHECK(pixels("P5#a 9\n\t 1 # of columns\r\v1\f255 " + text({'#'})) == Bytes{'#', '#', '#'});
  CHECK(pixels("P5 1#\n1 255#one line\n\n") == Bytes{'\n', '\n', '\n'});  // one blank alone ends the header
  every_cut_is_refused("P6 2 1 255\nabcdef");
  every_cut_is_refused("P5 #\n 2 2 256\nabcdefgh");
}

TEST_CASE("PNM: damaged and unread kinds are refused") {
  const auto says = [](const std::string& file, const std::string& what) { CHECK_THROWS_WITH(pixels(file), Catch::Contains(what)); };
  says("P6 4294967297 1 255\nabc", "damaged PNM (a number of its header is too large); odd");
  says("P6 1 1 99999999999999999999999 abc", "a number of its header is too large");
  says("P5 1 1 0\na", "its greatest value is 0, not 1 to 65535");
  says("P5 1 1 65536\naa", "its greatest value is 65536, not 1 to 65535");
  says("P5 1 -1 255\na", "not a number in its header");
  says("P5 1 1x 255\na", "not a number in its header");
  says("P5 0 1 255\na", "the picture is empty (0 x 1)");
  says("P6 2000 2000 255\na", "the picture has 2000 x 2000 pixels, more than 1000; odd");
  CHECK_THROWS_WITH(decode_image("P6 2147483647 2147483647 65535\nabc", "vast", {0}), Catch::Contains("it ends early"));
  says("P1\n1 1\n1", "a PBM (black and white) is not read; odd; save it as PNG");
  says("P4\n1 1\n1", "a PBM (black and white) is not read; odd; save it as PNG");
  says("P2\n1 1 255\n1", "a plain-text PNM is not read; odd; save it as PNG");
  says("P3#\n1 1 255\n1 1 1", "a plain-text PNM is not read; odd; save it as PNG");
  says("P6x 1 1 255\nabc", "not a picture of a known format");
}

std::string chunk(const std::string& name, const std::string& data) {
  const std::string part = name + data;
  const auto sum = crc32(0, reinterpret_cast<const Bytef*>(part.data()), static_cast<uInt>(part.size()));
  return big(static_cast<std::uint32_t>(data.size()), 4) + part + big(static_cast<std::uint32_t>(sum), 4);
}
// One row of pixels of 8 bits that name colours of the palette.
std::string palette_png(const std::string& palette, const std::string& row, const std::string& alpha = "") {
  const std::string raw = '\0' + row;
  std::array<Bytef, 600> packed;
  uLongf size = packed.size();
  REQUIRE(compress(packed.data(), &size, reinterpret_cast<const Bytef*>(raw.data()), static_cast<uLong>(raw.size())) == Z_OK);
  return "\x89PNG\r\n\x1A\n" + chunk("IHDR", big(static_cast<std::uint32_t>(row.size()), 4) + big(1, 4) + text({8, 3, 0, 0, 0})) +
         chunk("PLTE", palette) + (alpha.empty() ? "" : chunk("tRNS", alpha)) +
         chunk("IDAT", std::string(packed.begin(), packed.begin() + static_cast<std::ptrdiff_t>(size))) + chunk("IEND", "");
}
// `header` is 40, or 12 for the kind of OS/2, with colours of 3 bytes.
std::string palette_bmp(std::uint32_t header, const std::string& palette, std::string row, std::uint32_t bits = 8) {
  const std::uint32_t side = header == 12 ? 2 : 4, width = static_cast<std::uint32_t>(row.size()) * 8 / bits;
  const auto start = static_cast<std::uint32_t>(14 + header + palette.size());
  row.resize((row.size() + 3) / 4 * 4);
  return "BM" + little(0, 8) + little(start, 4) + little(header, 4) + little(width, static_cast<int>(side)) +
         little(1, static_cast<int>(side)) + little(1, 2) + little(bits, 2) + std::string(header - 8 - 2 * side, '\0') + palette + row;
}
// Leaves a full palette of another picture where the next decoder keeps its own.
void dirty_the_stack() {
  std::string all;
  for (int i = 0; i < 256; ++i) all += static_cast<char>(i);
  CHECK(pixels(palette_png(std::string(768, 'x'), all)) == Bytes(768, 'x'));
  CHECK(pixels(palette_bmp(40, std::string(1024, 'x'), all)) == Bytes(768, 'x'));
}

TEST_CASE("a colour that the palette lacks is black, whatever was decoded before") {
  const std::string row = text({0, 1, 2, 200}), end(6, '\0');
  const Bytes expected = {9, 8, 7, 6, 5, 4, 0, 0, 0, 0, 0, 0};
  dirty_the_stack();
  CHECK(pixels(palette_png(text({9, 8, 7, 6, 5, 4}), row)) == expected);
  dirty_the_stack();
  CHECK(pixels(palette_png(text({9, 8, 7, 6, 5, 4}), row, "\xFF\xFF")) == expected);  // and not transparent
  dirty_the_stack();
  CHECK(pixels(palette_bmp(40, text({7, 8, 9, 0, 4, 5, 6, 0}), row)) == expected);
  dirty_the_stack();
  CHECK(pixels(palette_bmp(12, text({7, 8, 9, 4, 5, 6}), row)) == expected);
}

TEST_CASE("BMP: the last colours of OS/2's palette, and palettes that are not there") {
  std::string palette;
  for (int i = 0; i < 256; ++i) palette += std::string(3, static_cast<char>(i));
  dirty_the_stack();
  CHECK(pixels(palette_bmp(12, palette, text({0, 251, 252, 255}))) == Bytes{0, 0, 0, 251, 251, 251, 252, 252, 252, 255, 255, 255});
  CHECK(pixels(palette_bmp(12, "abcdef", "\x50", 1)).size() == 24);
  CHECK(pixels(palette_bmp(12, text({1, 2, 3, 4, 5, 6}), "\x01", 4)) == Bytes{3, 2, 1, 6, 5, 4});
  every_cut_is_refused(palette_bmp(12, palette, "abcd"));
  every_cut_is_refused(palette_bmp(40, palette + std::string(256, '\0'), "abcd"));
  CHECK_THROWS_WITH(pixels(palette_bmp(40, "", "abcd")), Catch::Contains("damaged picture (its palette is missing); odd"));
  std::string inside = palette_bmp(40, "abcd", "abcd");
  inside[10] = 20;  // the pixels begin in the header
  CHECK_THROWS_WITH(pixels(inside), Catch::Contains("its palette is missing"));
  std::string unknown = palette_bmp(40, "abcd", "abcd");
  unknown[33] = '\xFF';  // a packing below 0, which stb_image takes for none
  CHECK_THROWS_WITH(pixels(unknown), Catch::Contains("a packed BMP"));
}

std::string tga(int kind, int columns, int bits, const std::string& data, int colors = 0) {
  return text({0, static_cast<std::uint8_t>(colors > 0), static_cast<std::uint8_t>(kind), 0, 0}) +
         little(static_cast<std::uint32_t>(colors), 2) + text({static_cast<std::uint8_t>(colors > 0 ? 24 : 0)}) + std::string(4, '\0') +
         little(static_cast<std::uint32_t>(columns), 2) + little(1, 2) + text({static_cast<std::uint8_t>(bits), 0x20}) + data;
}

TEST_CASE("TGA by run lengths: cut anywhere it is refused") {
  const std::string runs = tga(10, 3, 24, text({0x81, 3, 2, 1, 0, 6, 5, 4}));
  CHECK(pixels(runs) == Bytes{1, 2, 3, 1, 2, 3, 4, 5, 6});
  CHECK(pixels(runs + "more") == pixels(runs));
  every_cut_is_refused(runs);
  const std::string gray = tga(11, 4, 8, text({1, 7, 8, 0x81, 9}));
  CHECK(pixels(gray) == Bytes{7, 7, 7, 8, 8, 8, 9, 9, 9, 9, 9, 9});
  every_cut_is_refused(gray);
  const std::string palette = tga(9, 3, 8, text({3, 2, 1, 6, 5, 4, 0x81, 1, 0, 0}), 2);
  CHECK(pixels(palette) == Bytes{4, 5, 6, 4, 5, 6, 1, 2, 3});
  every_cut_is_refused(palette);
  std::string data;  // longer than a block of stb_image's, and a whole number of them
  for (int i = 0; i < 119; ++i) data += text({0, static_cast<std::uint8_t>(i)});
  for (int more = 0; more < 3; ++more) {
    const std::string file = tga(11, 119 + more, 8, data + text(Bytes(static_cast<std::size_t>(2 * more))));
    CHECK(pixels(file).size() == static_cast<std::size_t>(3 * (119 + more)));
    every_cut_is_refused(file);
  }
}

std::string psd(int depth, int packed, const std::string& data) {
  return "8BPS" + big(1, 2) + std::string(6, '\0') + big(3, 2) + big(1, 4) + big(3, 4) + big(static_cast<std::uint32_t>(depth), 2) +
         big(3, 2) + big(0, 4) + big(4, 4) + "8BIM" + big(0, 4) + big(static_cast<std::uint32_t>(packed), 2) + data;
}

TEST_CASE("PSD: cut anywhere it is refused") {
  const std::string raw = psd(8, 0, text({1, 2, 3, 4, 5, 6, 7, 8, 9}));
  CHECK(pixels(raw) == Bytes{1, 4, 7, 2, 5, 8, 3, 6, 9});
  every_cut_is_refused(raw);
  const std::string deep = psd(16, 0, text({1, 0, 2, 0, 3, 0, 4, 0, 5, 0, 6, 0, 7, 0, 8, 0, 9, 0xFF}));
  CHECK(pixels(deep) == Bytes{1, 4, 7, 2, 5, 8, 3, 6, 9});
  every_cut_is_refused(deep);
  const std::string runs = psd(8, 1, text({0, 2, 0, 4, 0, 3, 0xFE, 1, 2, 4, 5, 6, 0xFF, 7, 0, 9}));
  CHECK(pixels(runs) == Bytes{1, 4, 7, 1, 5, 7, 1, 6, 9});
  every_cut_is_refused(runs);
  std::string vast = raw;
  vast[26] = '\xFF';  // the length of a part, below 0 to stb_image
  CHECK_THROWS_WITH(pixels(vast), Catch::Contains("it ends early"));
}

}  // namespace
}  // namespace twinlens
