// Resizing and evaluation transforms against Pillow and open_clip for pictures of random sizes: made here by the rule of
// tests/golden/make_resize_sizes.py, compared as hashes.

#include <algorithm>
#include <catch2/catch.hpp>
#include <nlohmann/json.hpp>
#include <sstream>

#include "examples/twinlens/sha256.h"
#include "tests/support/temporary_folder.h"
#include "tests/support/toy_data.h"

#include "twinlens/clip/image.h"
#include "twinlens/core/file.h"

namespace twinlens::test {
namespace {

std::uint64_t splitmix(std::uint64_t state) {
  std::uint64_t z = state + 0x9E3779B97F4A7C15;
  z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9;
  z = (z ^ (z >> 27)) * 0x94D049BB133111EB;
  return z ^ (z >> 31);
}
std::int64_t number(std::uint64_t index, std::uint64_t which, std::uint64_t n) {
  return static_cast<std::int64_t>(splitmix(index * 1000 + which) % n);
}

Image picture(std::uint64_t index) {
  constexpr std::uint64_t kMost[] = {40, 300, 1200};
  const std::uint64_t most = kMost[number(index, 0, 3)];
  std::int64_t width = 1 + number(index, 1, most), height = 1 + number(index, 2, most);
  const std::int64_t narrow = std::min(width, 30 * height);
  height = std::min(height, 30 * width);
  width = narrow;
  Image image{width, height, {}};
  std::uint64_t i = index << 32;
  for (std::int64_t y = 0; y < height; ++y) {
    for (std::int64_t x = 0; x < width; ++x) {
      const std::int64_t ramp = (x * 255 / std::max<std::int64_t>(1, width - 1) + y * 255 / std::max<std::int64_t>(1, height - 1)) / 2;
      for (int c = 0; c < 3; ++c) {
        const auto noise = static_cast<std::int64_t>(splitmix(i++) >> 56);
        image.rgb.push_back(static_cast<std::uint8_t>(index % 2 == 0 ? noise : (ramp * 3 + noise) / 4));
      }
    }
  }
  return image;
}

std::string hash_of(const Image& image) {
  static const TemporaryFolder folder;
  write_text(folder / "bytes", std::string(image.rgb.begin(), image.rgb.end()));
  return program::sha256_of_file(folder / "bytes").substr(0, 16);
}

std::string row_of(std::uint64_t index, const Image& image, PassOrder order) {
  constexpr std::int64_t kSizes[] = {32, 64, 224};
  const std::int64_t size = kSizes[number(index, 3, 3)];
  std::string row = std::to_string(image.width) + "x" + std::to_string(image.height);
  for (const Filter filter : {Filter::bicubic, Filter::bilinear}) {
    for (const ResizeMode mode : {ResizeMode::shortest, ResizeMode::longest, ResizeMode::squash}) {
      row += ' ';
      row += hash_of(apply({size, mode, filter, static_cast<std::uint8_t>(index % 256), order}, image));
    }
    row += ' ';
    row += hash_of(resize(image, 1 + number(index, 4, 300), 1 + number(index, 5, 300), filter, order));
  }
  return row;
}

TEST_CASE("pictures of any size: Pillow's and open_clip's bytes, in both orders of the passes", "[image]") {
  const auto golden = nlohmann::json::parse(read_file(std::string(TWINLENS_SOURCE_DIR) + "/tests/golden/data/resize_sizes.json"));
  const auto count = golden["count"].get<std::uint64_t>();
  REQUIRE(count == 300);
  for (std::uint64_t index = 0; index < count; ++index) {
    CAPTURE(index);
    const Image image = picture(index);
    CHECK(row_of(index, image, PassOrder::pillow_13) == golden["pillow_13"][index]);
    CHECK(row_of(index, image, PassOrder::horizontal) == golden["horizontal"][index]);
  }
}

}  // namespace
}  // namespace twinlens::test
