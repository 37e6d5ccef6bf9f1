#include "twinlens/clip/image.h"

#include <algorithm>
#include <catch2/catch.hpp>
#include <cmath>
#include <cstring>
#include <fstream>
#include <functional>
#include <iterator>
#include <limits>
#include <nlohmann/json.hpp>

#include "examples/twinlens/sha256.h"
#include "tests/support/temporary_folder.h"

#include "twinlens/clip/augment.h"
#include "twinlens/kernels/error.h"
#include "twinlens/kernels/isa.h"

namespace twinlens {
namespace {

const std::string kData = std::string(TWINLENS_SOURCE_DIR) + "/tests/golden/data/";

std::string read_bytes(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  REQUIRE(file);
  return {std::istreambuf_iterator<char>(file), std::istreambuf_iterator<char>()};
}

// The fixture file, read here by hand so that this test depends on nothing above the picture code.
struct Fixture {
  std::string bytes = read_bytes(kData + "resize.safetensors");
  std::size_t start = 0;
  nlohmann::json header;
  Fixture() {
    std::uint64_t n = 0;
    std::memcpy(&n, bytes.data(), 8);
    start = 8 + static_cast<std::size_t>(n);
    header = nlohmann::json::parse(bytes.substr(8, static_cast<std::size_t>(n)));
  }
  std::string data(const std::string& name) const {
    const auto& range = header.at(name).at("data_offsets");
    return bytes.substr(start + range[0].get<std::size_t>(), range[1].get<std::size_t>() - range[0].get<std::size_t>());
  }
  Image image(const std::string& name) const {
    const std::string pixels = data(name);
    const auto& shape = header.at(name).at("shape");
    return {shape[1].get<std::int64_t>(), shape[0].get<std::int64_t>(), {pixels.begin(), pixels.end()}};
  }
};
const Fixture& fixture() {
  static const Fixture f;
  return f;
}
std::string hash_of(const Image& image) {
  const test::TemporaryFolder folder;
  std::ofstream(folder / "bytes", std::ios::binary)
      .write(reinterpret_cast<const char*>(image.rgb.data()), static_cast<std::streamsize>(image.rgb.size()));
  return program::sha256_of_file(folder / "bytes").substr(0, 16);
}
nlohmann::json cases() { return nlohmann::json::parse(read_bytes(kData + "resize.json")); }

TEST_CASE("resize: Pillow's bytes with every instruction set") {
  Isa sets[5];
  const Isa before = active_isa();
  const int count = available_isas(sets);
  const nlohmann::json all = cases()["resize"];
  for (int s = 0; s < count; ++s) {
    set_active_isa(sets[s]);
    for (std::size_t k = 0; k < all.size(); ++k) {
      const auto& c = all[k];
      CAPTURE(name_of(sets[s]), k, c.dump());
      Image image = fixture().image("image." + std::to_string(c["image"].get<int>()));
      const Filter filter = c["filter"] == "bicubic" ? Filter::bicubic : Filter::bilinear;
      const auto w = c["size"][0].get<std::int64_t>(), h = c["size"][1].get<std::int64_t>();
      Image got;
      if (c["op"] == "resize") {
        got = resize(image, w, h, filter);
      } else if (c["op"] == "box") {
        const auto b = c["box"].get<std::vector<float>>();
        got = resize(image, w, h, filter, {b[0], b[1], b[2], b[3]});
      } else {
        const auto b = c["box"].get<std::vector<std::int64_t>>();
        REQUIRE(w == h);
        got = crop_and_resize(image, {b[0], b[1], b[2] - b[0], b[3] - b[1]}, w, filter, false);
      }
      CHECK((got.width == w && got.height == h));
      CHECK(got.rgb == fixture().image("resize." + std::to_string(k)).rgb);
    }
  }
  set_active_isa(before);
}

TEST_CASE("eval transform: open_clip's pixels") {
  const nlohmann::json all = cases()["preprocess"];
  for (std::size_t k = 0; k < all.size(); ++k) {
    CAPTURE(k, all[k].dump());
    EvalTransform transform;
    transform.size = all[k]["image_size"].get<std::int64_t>();
    const Image got = apply(transform, fixture().image("image." + std::to_string(all[k]["image"].get<int>())));
    const std::vector<float> values = to_chw_float(got, kClipMean, kClipStd);
    const std::string raw = fixture().data("preprocess." + std::to_string(k));
    std::vector<float> expected(raw.size() / 4);
    std::memcpy(expected.data(), raw.data(), raw.size());
    REQUIRE(values.size() == expected.size());
    for (std::size_t i = 0; i < values.size(); ++i) REQUIRE(values[i] == Approx(expected[i]).margin(1e-6));
  }
}

TEST_CASE("eval transform: longest and squash") {
  Image image{4, 2, std::vector<std::uint8_t>(24, 200)};
  const Image padded = apply({4, ResizeMode::longest, Filter::bicubic, 7, {}}, image);
  CHECK(padded.rgb.size() == 48);
  CHECK(std::count(padded.rgb.begin(), padded.rgb.begin() + 12, 7) == 12);
  CHECK(std::count(padded.rgb.begin() + 12, padded.rgb.begin() + 36, 200) == 24);
  CHECK(std::count(padded.rgb.begin() + 36, padded.rgb.end(), 7) == 12);
  CHECK(apply({3, ResizeMode::squash, Filter::bilinear, 0, {}}, image).rgb == std::vector<std::uint8_t>(27, 200));
  CHECK_THROWS_AS(apply({0, ResizeMode::squash, Filter::bilinear, 0, {}}, image), ShapeError);
}

TEST_CASE("resize: the order of the passes follows the version of Pillow asked for") {
  const Image tall = fixture().image("image.8");  // 3 x 90: Pillow 13 resizes the height first
  CHECK(resize(tall, 16, 16, Filter::bicubic).rgb == resize(resize(tall, 3, 16, Filter::bicubic), 16, 16, Filter::bicubic).rgb);
  const Image horizontal = resize(tall, 16, 16, Filter::bicubic, PassOrder::horizontal);
  CHECK(horizontal.rgb == resize(resize(tall, 16, 90, Filter::bicubic), 16, 16, Filter::bicubic).rgb);
  CHECK(horizontal.rgb != resize(tall, 16, 16, Filter::bicubic).rgb);
}

TEST_CASE("resize: mirror and refused boxes") {
  const Image image = fixture().image("image.9");
  const Image plain = crop_and_resize(image, {3, 5, 30, 31}, 16, Filter::bicubic, false);
  const Image mirrored = crop_and_resize(image, {3, 5, 30, 31}, 16, Filter::bicubic, true);
  for (std::size_t r = 0; r < 16; ++r) {
    for (std::size_t x = 0; x < 16; ++x) {
      for (std::size_t c = 0; c < 3; ++c) REQUIRE(plain.rgb[(r * 16 + x) * 3 + c] == mirrored.rgb[(r * 16 + 15 - x) * 3 + c]);
    }
  }
  CHECK_THROWS_WITH(resize(image, 8, 8, Filter::bicubic, {0, 0, 48, 45}), Catch::Contains("leaves the picture of 47 x 45"));
  CHECK_THROWS_WITH(resize(image, 0, 8, Filter::bicubic), "cannot resize 47 x 45 to 0 x 8; resize; use sizes of at least 1 x 1");
  CHECK_THROWS_AS(crop_and_resize(image, {40, 0, 8, 8}, 4, Filter::bicubic, false), ShapeError);
}

TEST_CASE("a picture without its pixels is refused, and none is made of size 0") {
  const Image hollow{4, 4, {}};
  const auto refused = Catch::Contains("a picture of 4 x 4 with 0 bytes; Image::rgb");
  CHECK_THROWS_WITH(resize(hollow, 2, 2, Filter::bicubic), refused);
  CHECK_THROWS_WITH(crop_and_resize(hollow, {0, 0, 2, 2}, 2, Filter::bicubic, false), refused);
  CHECK_THROWS_WITH(apply({2, ResizeMode::squash, Filter::bicubic, 0, {}}, hollow), refused);
  CHECK_THROWS_WITH(augment(hollow, 2, {}, 1, 1, 1), refused);
  CHECK_THROWS_AS(augment(Image{}, 2, {}, 1, 1, 1), ShapeError);
  CHECK_THROWS_AS(augment(Image{4, 4, std::vector<std::uint8_t>(48, 1)}, 0, {}, 1, 1, 1), ShapeError);
}

TEST_CASE("augment: factors of colour are never below 0, however far they may go") {
  const Image image{2, 2, std::vector<std::uint8_t>{250, 10, 10, 10, 250, 10, 10, 10, 250, 128, 128, 128}};
  AugmentOptions o;
  o.scale = {1.0, 1.0};
  o.ratio = {1.0, 1.0};
  o.jitter_probability = 1.0;
  o.contrast = 3.0;
  // A contrast below 0 would turn light into dark.
  for (std::int64_t sample = 0; sample < 50; ++sample) {
    const Image out = augment(image, 2, o, 1, 1, sample);
    for (std::size_t i = 0; i < 9; i += 4) CHECK(out.rgb[i] >= out.rgb[i == 0 ? 1 : 0]);
  }
}

TEST_CASE("augment: options out of range are refused by name") {
  const Image image{4, 4, std::vector<std::uint8_t>(48, 1)};
  const double nan = std::nan("");
  const auto check_refused = [&](const char* field, const std::function<void(AugmentOptions&)>& set) {
    AugmentOptions o;
    set(o);
    const auto names_it = Catch::Contains("augment: " + std::string(field) + " is out of range; AugmentOptions; give ");
    CHECK_THROWS_WITH(augment(image, 2, o, 1, 1, 1), names_it);
    CHECK_THROWS_WITH(random_crop(4, 4, o, 1, 1, 1), names_it);
    CHECK_THROWS_WITH(least_scale(4, 4, 2, o, 1, 1, 1), names_it);
  };
  check_refused("scale", [](AugmentOptions& o) { o.scale = {0.0, 1.0}; });
  check_refused("scale", [](AugmentOptions& o) { o.scale = {0.5, 1.5}; });
  check_refused("ratio", [](AugmentOptions& o) { o.ratio = {2.0, 1.0}; });
  check_refused("zoom", [nan](AugmentOptions& o) { o.zoom = {1.0, nan}; });
  check_refused("sharpness", [](AugmentOptions& o) { o.sharpness = {-1.0, 1.0}; });
  check_refused("flip_probability", [](AugmentOptions& o) { o.flip_probability = 1.5; });
  check_refused("jitter_probability", [nan](AugmentOptions& o) { o.jitter_probability = nan; });
  check_refused("gray_probability", [](AugmentOptions& o) { o.gray_probability = -0.5; });
  check_refused("invert_probability", [](AugmentOptions& o) { o.invert_probability = 2.0; });
  check_refused("sharpness_probability", [](AugmentOptions& o) { o.sharpness_probability = 2.0; });
  check_refused("translate", [](AugmentOptions& o) { o.translate = 1.5; });
  check_refused("brightness", [nan](AugmentOptions& o) { o.brightness = nan; });
  check_refused("contrast", [](AugmentOptions& o) { o.contrast = -1.0; });
  check_refused("saturation", [nan](AugmentOptions& o) { o.saturation = nan; });
  check_refused("hue", [nan](AugmentOptions& o) { o.hue = nan; });
  check_refused("gamma", [](AugmentOptions& o) { o.gamma = std::numeric_limits<double>::infinity(); });
  check_refused("rotate_degrees", [](AugmentOptions& o) { o.rotate_degrees = -1.0; });
}

TEST_CASE("decode: every kind of PNG means what Pillow says") {
  const auto png = cases()["png"];
  for (const auto& entry : png.items()) {
    CAPTURE(entry.key());
    const Image got = read_image(kData + "png_" + entry.key() + ".png");
    const bool deep_gray = entry.key() == "l16";  // Pillow cuts 16-bit gray at 255; the fixture has the sane reading beside it
    CHECK(got.rgb == fixture().image("png." + entry.key() + (deep_gray ? ".high_byte" : "")).rgb);
  }
}

TEST_CASE("decode: damaged, cut off, unknown and too large files are refused") {
  const std::string png = read_bytes(kData + "png_rgb.png");
  CHECK_THROWS_WITH(decode_image(png.substr(0, png.size() / 2), "half.png"),
                    Catch::Contains("damaged picture") && Catch::Contains("half.png"));
  CHECK_THROWS_WITH(decode_image("", "none.png"), "the file is empty; none.png; replace the file or leave it out");
  CHECK_THROWS_WITH(decode_image("hello, this is text", "x.png"),
                    Catch::Contains("not a picture of a known format; x.png; this build reads"));
  CHECK_THROWS_WITH(decode_image(png, "big.png", {100}),
                    "the picture has 13 x 10 pixels, more than 100; big.png; shrink the file or raise "
                    "--max-image-pixels");
  CHECK_NOTHROW(decode_image(png, "exact.png", {130}));
  CHECK_THROWS_WITH(read_image("/nowhere/x.png"), Catch::Contains("No such file or directory; '/nowhere/x.png'; check the path"));
  CHECK_THROWS_WITH(read_image(kData), Catch::Contains("Is a directory; '" + kData + "'; give a file, not a folder"));
  for (std::size_t i = 0; i < png.size(); ++i) {  // no byte may crash the decoder
    std::string broken = png;
    broken[i] = static_cast<char>(broken[i] ^ 0x41);
    try {
      (void)decode_image(broken, "broken.png", {1000});
    } catch (const FileError&) {
    }
  }
}

std::string little_endian(std::uint32_t n, int bytes) {
  std::string out;
  for (int i = 0; i < bytes; ++i) out += static_cast<char>(n >> (8 * i));
  return out;
}
// A BMP of one column of `height` pixels (fewer than 0: the first row comes first), blue, green, red and a fourth byte each.
std::string bmp(std::int32_t height, const std::string& pixels) {
  return "BM" + little_endian(static_cast<std::uint32_t>(54 + pixels.size()), 4) + little_endian(0, 4) + little_endian(54, 4) +
         little_endian(40, 4) + little_endian(1, 4) + little_endian(static_cast<std::uint32_t>(height), 4) + little_endian(1, 2) +
         little_endian(32, 2) + little_endian(0, 4) + std::string(20, '\0') + pixels;
}

TEST_CASE("decode: a BMP's rows from either end, and the byte that is no alpha") {
  const std::string pixels = std::string("\x01\x02\x03\x00", 4) + std::string("\x04\x05\x06\x01", 4);
  CHECK(decode_image(bmp(2, pixels), "up.bmp").rgb == std::vector<std::uint8_t>{6, 5, 4, 3, 2, 1});
  CHECK(decode_image(bmp(-2, pixels), "down.bmp").rgb == std::vector<std::uint8_t>{3, 2, 1, 6, 5, 4});
  CHECK_THROWS_WITH(decode_image(bmp(2, pixels.substr(0, 7)), "cut.bmp"), Catch::Contains("damaged picture (it ends early); cut.bmp"));
  std::string packed = bmp(2, pixels);
  packed[30] = 1;
  CHECK_THROWS_WITH(decode_image(packed, "packed.bmp"), "a packed BMP (by run lengths, mostly) is not read; packed.bmp; save it as PNG");
}

TEST_CASE("decode: pictures that are not packed and end early are refused") {
  const std::string ppm = "P6 2 2 255\n" + std::string(12, 'x');
  CHECK(decode_image(ppm, "whole.ppm").rgb == std::vector<std::uint8_t>(12, 'x'));
  CHECK_THROWS_WITH(decode_image(ppm.substr(0, ppm.size() - 6), "cut.ppm"), Catch::Contains("it ends early"));
  const std::string tga = std::string("\0\0\2", 3) + std::string(9, '\0') + little_endian(2, 2) + little_endian(2, 2) +
                          std::string("\x18\x20", 2) + std::string(12, 'y');
  CHECK(decode_image(tga, "whole.tga").rgb == std::vector<std::uint8_t>(12, 'y'));
  CHECK_THROWS_WITH(decode_image(tga.substr(0, tga.size() - 1), "cut.tga"), Catch::Contains("it ends early"));
}

TEST_CASE("decode: a PNG whose pixels were changed is refused by its checksum") {
  std::string png = read_bytes(kData + "png_rgb.png");
  const std::size_t pixels = png.find("IDAT");
  REQUIRE(pixels != std::string::npos);
  png[pixels + 20] = static_cast<char>(png[pixels + 20] ^ 1);
  CHECK_THROWS_WITH(decode_image(png, "flipped.png"), Catch::Contains("damaged PNG (the checksum of its part IDAT is wrong); flipped.png"));
  png[pixels + 1] = '\x1B';  // no byte of a damaged name goes to a terminal
  CHECK_THROWS_WITH(decode_image(png, "named.png"), Catch::Contains("damaged PNG (the checksum of its part I?AT is wrong); named.png"));
}

// Pictures made with Pillow, and beside each a PNG of what Pillow reads in it.
const std::string kPictures = std::string(TWINLENS_SOURCE_DIR) + "/tests/clip/data/";

int largest_difference(const Image& a, const Image& b) {
  REQUIRE(a.rgb.size() == b.rgb.size());
  int most = 0;
  for (std::size_t i = 0; i < a.rgb.size(); ++i) most = std::max(most, std::abs(a.rgb[i] - b.rgb[i]));
  return most;
}

TEST_CASE("decode: JPEG") {
  // With libjpeg-turbo the bytes are Pillow's; stb_image's transform differs by a few levels.
  const bool exact = image_formats().find("libjpeg") != std::string::npos;
  for (const std::string name : {"gradient", "gray"}) {
    CAPTURE(name);
    CHECK(largest_difference(read_image(kPictures + name + ".jpg"), read_image(kPictures + name + "_jpg.png")) <= (exact ? 0 : 8));
  }
  if (exact) CHECK(largest_difference(read_image(kPictures + "cmyk.jpg"), read_image(kPictures + "cmyk_jpg.png")) <= 1);
  if (exact) {  // the same without Adobe's marker
    std::string plain = read_bytes(kPictures + "cmyk.jpg");
    const std::size_t marker = plain.find("\xFF\xEE");
    REQUIRE(marker != std::string::npos);
    plain.erase(marker,
                2 + static_cast<unsigned char>(plain[marker + 2]) * std::size_t{256} + static_cast<unsigned char>(plain[marker + 3]));
    CHECK(largest_difference(decode_image(plain, "plain.jpg"), read_image(kPictures + "cmyk_jpg.png")) <= 1);
  }
  const std::string jpeg = read_bytes(kPictures + "gradient.jpg");
  CHECK_THROWS_WITH(decode_image(jpeg, "big.jpg", {383}), Catch::Contains("24 x 16 pixels, more than 383; big.jpg"));
  if (exact)
    CHECK_THROWS_WITH(decode_image(jpeg.substr(0, jpeg.size() - 60), "half.jpg"),
                      Catch::Contains("damaged JPEG") && Catch::Contains("half.jpg"));
  CHECK_THROWS_AS(decode_image(jpeg.substr(0, 30), "head.jpg"), FileError);
}

TEST_CASE("decode: WebP") {
  if (image_formats().find("WebP") == std::string::npos) {
    CHECK_THROWS_WITH(read_image(kPictures + "gradient.webp"), Catch::Contains("WebP cannot be read by this build"));
    return;
  }
  CHECK(largest_difference(read_image(kPictures + "gradient.webp"), read_image(kPictures + "gradient_webp.png")) == 0);
  const std::string webp = read_bytes(kPictures + "gradient.webp");
  CHECK_THROWS_WITH(decode_image(webp.substr(0, webp.size() / 2), "half.webp"),
                    Catch::Contains("damaged WebP") && Catch::Contains("half.webp"));
}

TEST_CASE("decode: the first frame of an animation") {
  for (const std::string name : {"animated.webp", "animated_alpha.webp", "animated.gif"}) {
    CAPTURE(name);
    const bool webp = name.ends_with("webp");
    if (webp && image_formats().find("WebP") == std::string::npos) continue;
    const std::string file = read_bytes(kPictures + name);
    std::string png = name + ".png";
    std::replace(png.begin(), png.end() - 4, '.', '_');
    const Image first = read_image(kPictures + png);
    CHECK(largest_difference(decode_image(file, name), first) == 0);
    CHECK_THROWS_WITH(decode_image(file, name, {383}), Catch::Contains("24 x 16 pixels, more than 383; " + name));
    // Cut anywhere it is refused, or gives the whole frame: never a part of it.
    std::size_t whole = 0;
    for (std::size_t size = 1; size < file.size(); ++size) {
      CAPTURE(size);
      try {
        const Image part = decode_image(file.substr(0, size), name);
        REQUIRE(part.rgb == first.rgb);
        ++whole;
      } catch (const FileError& e) {
        if (size > 30) REQUIRE_THAT(std::string(e.what()), Catch::Contains(webp ? "damaged WebP" : "it ends early"));
      }
    }
    CHECK(whole < file.size() / 2);
  }
}

TEST_CASE("decode: EXIF orientation when asked for, as Pillow's exif_transpose") {
  struct Case {
    const char *name, *hash;
  };
  const bool jpeg = image_formats().find("libjpeg") != std::string::npos, webp = image_formats().find("WebP") != std::string::npos;
  for (const Case& c : std::initializer_list<Case>{{"exif_1.jpg", "51a44752945c6cbc"},
                                                   {"exif_2.jpg", "f769632020d48255"},
                                                   {"exif_3.jpg", "95fdbb7e7c95ee23"},
                                                   {"exif_4.jpg", "269d29754d72b710"},
                                                   {"exif_5.jpg", "574f7a79702d2d75"},
                                                   {"exif_6.jpg", "d45ffe50bc0b715d"},
                                                   {"exif_7.jpg", "4bd0b1ea574d88eb"},
                                                   {"exif_8.jpg", "8652764564057d9d"},
                                                   {"exif_8.png", "a8237aaaab6bd005"},
                                                   {"exif_8.webp", "a8237aaaab6bd005"}}) {
    const std::string name = c.name;
    CAPTURE(name);
    if (name.ends_with("webp") && !webp) continue;
    const Image upright = read_image(kPictures + name, {1000, true}), stored = read_image(kPictures + name);
    CHECK((stored.width == 24 && stored.height == 16));
    CHECK((upright.width == 24) == (name[5] < '5'));
    if (!name.ends_with("jpg") || jpeg) CHECK(hash_of(upright) == c.hash);
  }
  // Damaged tags are no tags: every byte of the header once.
  const std::string file = read_bytes(kPictures + "exif_6.jpg");
  for (std::size_t i = 2; i < 120; ++i) {
    std::string broken = file;
    broken[i] = static_cast<char>(broken[i] ^ 0x7F);
    try {
      (void)decode_image(broken, "broken.jpg", {1000, true});
    } catch (const FileError&) {
    }
  }
}

}  // namespace
}  // namespace twinlens
