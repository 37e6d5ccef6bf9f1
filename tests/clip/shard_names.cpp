// Shards by their names: the indices beside them, and equal names in different folders.

#include <catch2/catch.hpp>
#include <filesystem>

#include "tests/support/loading.h"
#include "tests/support/temporary_folder.h"
#include "tests/support/toy_tars.h"

#include "twinlens/clip/dataset.h"
#include "twinlens/clip/picture_stream.h"

namespace twinlens::test {
namespace {

namespace fs = std::filesystem;

TEST_CASE("a pattern that matches all files of a folder leaves out the indices kept there", "[data]") {
  const TemporaryFolder folder;
  const auto pairs = toy_pairs(12);
  for (const std::size_t i : {0U, 1U}) {
    const std::string tar = folder / (std::to_string(i) + ".tar");
    write_tar(tar, members_of(pairs, 6 * i, 6 * i + 6));
    make_old(tar);
  }
  const std::string first = open_dataset(folder / "*")->fingerprint();
  REQUIRE(fs::exists(folder / "0.tar.twinlens-index"));
  const auto again = open_dataset(folder / "*");
  CHECK(again->size() == 12);
  CHECK(again->skipped().empty());
  CHECK(again->fingerprint() == first);

  PictureStream stream({folder / "0.tar", folder / "0.tar.twinlens-index", folder / "1.tar"});
  int pictures = 0;
  for (EncodedPicture picture; stream.next(picture); ++pictures) CHECK(picture.damage.empty());
  CHECK(pictures == 12);
}

TEST_CASE("unusable samples of shards with one name in two folders are told apart", "[data]") {
  const TemporaryFolder folder;
  auto pairs = toy_pairs(8);
  for (const std::size_t i : {1U, 2U, 5U}) pairs[i].png = "no picture";
  for (std::size_t i = 4; i < 8; ++i) pairs[i].name = pairs[i - 4].name;
  for (const std::size_t i : {0U, 1U}) {
    fs::create_directories(folder / (i == 0 ? "a" : "b"));
    write_tar(folder / (i == 0 ? "a/0.tar" : "b/0.tar"), members_of(pairs, 4 * i, 4 * i + 4));
  }
  const auto data = open_dataset(folder / "a/0.tar" + "::" + folder / "b/0.tar");
  CHECK(data->key(0) == folder / "a/0.tar" + ":" + pairs[0].name);
  CHECK(data->key(4) == folder / "b/0.tar" + ":" + pairs[0].name);
  CHECK(open_dataset(folder / "a/0.tar")->key(0) == "0.tar:" + pairs[0].name);

  LoaderOptions o = options_of(4, 1);
  o.max_skipped = 1.0;
  Loader loader(data, tokenizer(), o);
  for (int batch = 0; batch < 4; ++batch) loader.next();
  CHECK(loader.skipped().size() == 3);
}

}  // namespace
}  // namespace twinlens::test
