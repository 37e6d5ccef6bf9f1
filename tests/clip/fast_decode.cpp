// JPEGs decoded at a smaller scale: which scale, and that what comes out is near the picture decoded whole.

#include <algorithm>
#include <catch2/catch.hpp>
#include <cstdlib>
#include <filesystem>

#include "tests/support/temporary_folder.h"
#include "tests/support/toy_data.h"

#include "twinlens/clip/augment.h"
#include "twinlens/clip/embedding.h"
#include "twinlens/clip/image.h"
#include "twinlens/clip/loader.h"
#include "twinlens/core/file.h"
#include "twinlens/kernels/error.h"

namespace twinlens::test {
namespace {

// Made with Pillow: 131 x 97, smooth, colour at half the resolution, marked as lying on its side (EXIF 6).
const std::string kOdd = std::string(TWINLENS_SOURCE_DIR) + "/tests/clip/data/odd.jpg";

bool with_libjpeg() { return image_formats().find("libjpeg") != std::string::npos; }

DecodeOptions at_least(double scale, bool upright = false) {
  DecodeOptions o;
  o.exif_orientation = upright;
  o.least_scale = [scale](std::int64_t width, std::int64_t height) {
    CHECK((width == 131 && height == 97));
    return scale;
  };
  return o;
}

// Levels of 255, on average.
double difference(const std::uint8_t* a, const std::uint8_t* b, std::size_t n) {
  double sum = 0.0;
  for (std::size_t i = 0; i < n; ++i) sum += std::abs(int{a[i]} - int{b[i]});
  return sum / static_cast<double>(n);
}
double difference(const Image& a, const Image& b) {
  REQUIRE((a.width == b.width && a.height == b.height));
  return difference(a.rgb.data(), b.rgb.data(), a.rgb.size());
}

TEST_CASE("fast decoding: the smallest scale that leaves enough, sides rounded up") {
  if (!with_libjpeg()) return;
  struct Case {
    double least;
    std::int64_t width, height;
  };
  const Image whole = read_image(kOdd);
  CHECK((whole.width == 131 && whole.height == 97 && whole.scale == 1.0));
  for (const Case& c : std::initializer_list<Case>{{2.0, 131, 97},
                                                   {0.501, 131, 97},
                                                   {0.5, 66, 49},
                                                   {0.251, 66, 49},
                                                   {0.25, 33, 25},
                                                   {0.126, 33, 25},
                                                   {0.125, 17, 13},
                                                   {0.0, 17, 13}}) {
    CAPTURE(c.least);
    const Image image = read_image(kOdd, at_least(c.least));
    CHECK((image.width == c.width && image.height == c.height));
    CHECK(image.rgb.size() == static_cast<std::size_t>(c.width * c.height * 3));
    if (c.width == 131) CHECK((image.rgb == whole.rgb && image.scale == 1.0));
    if (c.width < 131) CHECK((image.full_width == 131 && image.full_height == 97 && image.scale >= c.least && image.scale <= 0.5));
    const Image upright = read_image(kOdd, at_least(c.least, true));
    CHECK((upright.width == c.height && upright.height == c.width));
    if (c.width < 131) CHECK((upright.full_width == 97 && upright.full_height == 131 && upright.scale == image.scale));
  }
}

TEST_CASE("fast decoding: the evaluation transform sees nearly the same") {
  for (const ResizeMode mode : {ResizeMode::shortest, ResizeMode::longest, ResizeMode::squash}) {
    for (const std::int64_t size : {8, 12, 13, 24, 32, 48, 60, 97, 150}) {
      for (const bool upright : {false, true}) {
        EvalTransform t;
        t.size = size;
        t.mode = mode;
        EmbedOptions o;
        o.exif_orientation = upright;
        const Image exact = apply(t, read_image(kOdd, decode_options(o, t)));
        o.fast_decode = true;
        const Image decoded = read_image(kOdd, decode_options(o, t)), fast = apply(t, decoded);
        CAPTURE(static_cast<int>(mode), size, upright, decoded.width);
        const std::int64_t edge =
            mode == ResizeMode::longest ? std::max(decoded.width, decoded.height) : std::min(decoded.width, decoded.height);
        if (decoded.scale < 1.0) CHECK(edge >= size);
        CHECK(difference(fast, exact) <= (decoded.scale < 1.0 ? 2.5 : 0.0));
      }
    }
  }
}

TEST_CASE("fast decoding: the same crops, from as few pixels as they need") {
  AugmentOptions o;
  o.scale = {0.2, 1.0};
  o.flip_probability = 0.5;
  const Image whole = read_image(kOdd);
  int reduced = 0;
  for (std::int64_t sample = 0; sample < 60; ++sample) {
    const std::int64_t size = 16;
    DecodeOptions decode;
    decode.least_scale = [&](std::int64_t w, std::int64_t h) { return least_scale(w, h, size, o, 5, 1, sample); };
    const Image decoded = read_image(kOdd, decode);
    const Rect crop = random_crop(131, 97, o, 5, 1, sample);
    CAPTURE(sample, decoded.width, crop.width, crop.height);
    CHECK(static_cast<double>(std::min(crop.width, crop.height)) * decoded.scale >= (decoded.scale < 1.0 ? 16.0 : 0.0));
    CHECK(difference(augment(decoded, size, o, 5, 1, sample), augment(whole, size, o, 5, 1, sample)) <= (decoded.scale < 1.0 ? 3.0 : 0.0));
    reduced += decoded.scale < 1.0 ? 1 : 0;
  }
  if (with_libjpeg()) CHECK(reduced > 30);
}

TEST_CASE("fast decoding: other formats are as before, and so are errors") {
  DecodeOptions o = at_least(0.1);
  const std::string png = encode_png(std::vector<std::uint8_t>(131 * 97 * 3, 9), 131, 97);
  const Image image = decode_image(png, "x.png", o);
  CHECK((image.width == 131 && image.height == 97 && image.scale == 1.0));
  const std::string jpeg = read_file(kOdd);
  o.max_pixels = 131 * 97 - 1;
  CHECK_THROWS_WITH(decode_image(jpeg, "big.jpg", o), Catch::Contains("131 x 97 pixels, more than"));
  o.max_pixels = 0;
  if (with_libjpeg())
    CHECK_THROWS_WITH(decode_image(jpeg.substr(0, jpeg.size() - 400), "half.jpg", o),
                      Catch::Contains("damaged JPEG") && Catch::Contains("half.jpg"));
}

TEST_CASE("fast decoding: the loader gives the same batches for any number of workers, and keeps nothing decoded") {
  const TemporaryFolder folder;
  for (int i = 0; i < 12; ++i) {
    const std::string name = folder / std::to_string(i);
    std::filesystem::copy_file(kOdd, name + ".jpg");
    write_text(name + ".txt", "picture " + std::to_string(i));
  }
  LoaderOptions o;
  o.batch_size = 4;
  o.image_size = 16;
  o.augment.scale = {0.3, 1.0};
  o.workers = 1;
  const auto data = open_dataset(folder / "");
  Loader exact(data, clip_tokenizer(), o);
  o.fast_decode = true;
  Loader one(data, clip_tokenizer(), o);
  o.workers = 3;
  o.decoded_cache = 1 << 30;
  Loader kept(data, clip_tokenizer(), o);
  for (int i = 0; i < 9; ++i) {
    const LoadedBatch a = exact.next(), b = one.next(), c = kept.next();
    const auto n = static_cast<std::size_t>(4 * 16 * 16 * 3);
    CHECK(difference(b.pixels.data<std::uint8_t>(), c.pixels.data<std::uint8_t>(), n) == 0.0);
    const double apart = difference(a.pixels.data<std::uint8_t>(), b.pixels.data<std::uint8_t>(), n);
    CHECK(apart <= 3.0);
    if (with_libjpeg()) CHECK(apart > 0.0);
    CHECK(a.samples == b.samples);
  }
}

TEST_CASE("fast decode reaches the pictures that are embedded") {
  if (!with_libjpeg()) return;
  const Clip model(parse_model_config(toy_vit_json(), "test"), 1);
  const std::vector<std::string> bytes{read_file(kOdd)}, names{kOdd};
  EmbedOptions options;
  const LoadedPictures exact = load_pictures(model, bytes, names, options);
  CHECK_THROWS_WITH(load_pictures(model, bytes, {}, options), Catch::Contains("1 pictures and 0 names"));
  options.fast_decode = true;
  const LoadedPictures fast = load_pictures(model, bytes, names, options);
  REQUIRE(exact.pixels.shape() == fast.pixels.shape());
  const double apart =
      difference(exact.pixels.data<std::uint8_t>(), fast.pixels.data<std::uint8_t>(), static_cast<std::size_t>(exact.pixels.count()));
  CHECK(apart > 0.0);
  CHECK(apart <= 2.5);
}

}  // namespace
}  // namespace twinlens::test
