// Folders and tars as they are found: links, hidden things, what may not or cannot be read.

#include <algorithm>
#include <catch2/catch.hpp>
#include <filesystem>
#include <map>
#include <set>
#include <unistd.h>

#include "tests/support/archive_files.h"
#include "tests/support/temporary_folder.h"
#include "tests/support/toy_tars.h"

#include "twinlens/clip/dataset.h"
#include "twinlens/clip/image.h"
#include "twinlens/clip/picture_stream.h"
#include "twinlens/core/file.h"

namespace twinlens::test {
namespace {

using Catch::Contains;

TEST_CASE("a folder's pictures may be PNM, too; of formats that are not read a user hears", "[data]") {
  const TemporaryFolder folder;
  write_text(folder / "a.ppm", "P6\n1 1\n255\nabc");
  write_text(folder / "a.txt", "a grey dot");
  write_text(folder / "b.ico", "");
  const auto data = open_dataset(folder.path());
  REQUIRE(data->size() == 1);
  CHECK(decode_image(data->image_bytes(0), "a.ppm", {}).rgb == std::vector<std::uint8_t>{'a', 'b', 'c'});
  REQUIRE(data->skipped().size() == 1);
  CHECK(data->skipped()[0].key == "b.ico");
}

TEST_CASE("one walk through a folder: links are followed and end, what is left out is told", "[data]") {
  const TemporaryFolder folder;
  const std::string png = toy_pairs(1)[0].png;
  const auto keys_of = [&](const Dataset& data) {
    std::vector<std::string> out;
    for (std::int64_t i = 0; i < data.size(); ++i) out.push_back(data.key(i));
    return out;
  };
  // The names that a stream of the folder has; what it leaves out goes to `left_out`.
  const auto streamed = [&](const std::string& name, std::set<std::string>& left_out) {
    PictureStream stream({folder / name});
    std::vector<std::string> out;
    for (EncodedPicture p; stream.next(p);) {
      const std::string key = p.name.substr((folder / name).size() + 1);
      if (p.damage.empty()) out.push_back(key);
      if (!p.damage.empty()) left_out.insert(key);
    }
    return out;
  };
  const auto check = [&](const std::string& name, std::size_t count) {
    const auto data = open_dataset(folder / name);
    std::set<std::string> left_out, skipped;
    for (const SkippedSample& s : data->skipped()) skipped.insert(s.key);
    CHECK(data->size() == static_cast<std::int64_t>(count));
    CHECK(keys_of(*data) == streamed(name, left_out));
    CHECK(left_out == skipped);
    return data;
  };
  // Two links to one folder are two folders.
  for (const char* name : {"two/cat", "two/dog", "store/shared"}) std::filesystem::create_directories(folder / name);
  write_text(folder / "store/shared/1.png", png);
  for (const char* name : {"two/cat/shared", "two/dog/shared"})
    std::filesystem::create_directory_symlink(folder / "store/shared", folder / name);
  CHECK(keys_of(*check("two", 2)) == std::vector<std::string>{"cat/shared/1.png", "dog/shared/1.png"});

  // Links that lead to each other end; what macOS adds is nothing, what cannot be read is told.
  for (const std::string a : {"a", "b", "c", "d"}) {
    std::filesystem::create_directories(folder / ("ring/" + a + "/__MACOSX"));
    for (const char* name : {"/1.png", "/._1.png", "/__MACOSX/._1.png"}) write_text(folder / ("ring/" + a + name), png);
    for (const std::string b : {"a", "b", "c", "d"}) {
      if (a != b) std::filesystem::create_directory_symlink(folder / ("ring/" + b), folder / ("ring/" + a + "/to_" + b));
    }
  }
  write_text(folder / "ring/a/scan.TIFF", "II*");
  const auto ring = check("ring", 40);  // of each: itself, and within each of its three links each of three once
  std::set<std::string> reasons;
  for (const SkippedSample& s : ring->skipped()) {
    reasons.insert(s.reason.substr(0, s.reason.find(';')));
    CHECK(s.by_rule != s.key.ends_with("scan.TIFF"));
  }
  CHECK(reasons == std::set<std::string>{"a format that is not read", "a link to a folder that it lies in is not followed",
                                         "a link within a linked folder, to a folder that another one there has led to, is not followed"});
}

TEST_CASE("hidden files and folders are no pictures and no classes", "[data]") {
  const TemporaryFolder folder;
  const auto pairs = toy_pairs(2);
  const std::string root = folder / ".hidden root";  // (named by the user: that is meant)
  for (const char* name : {"/cat", "/dog", "/cat/.ipynb_checkpoints", "/.git"}) std::filesystem::create_directories(root + name);
  write_text(root + "/cat/1.png", pairs[0].png);
  write_text(root + "/dog/2.png", pairs[1].png);
  for (const char* name : {"/cat/.ipynb_checkpoints/1-checkpoint.png", "/.git/x.png", "/dog/.thumb.png"}) write_text(root + name, "no");
  write_text(root + "/dog/.2.txt", "no caption");
  const auto data = open_dataset(root);
  REQUIRE(data->size() == 2);
  CHECK(data->has_classes());
  CHECK(data->key(1) == "dog/2.png");
  std::set<std::string> skipped;
  for (const SkippedSample& s : data->skipped()) {
    skipped.insert(s.key);
    CHECK(s.by_rule);
    CHECK_THAT(s.reason, Contains("hidden"));
  }
  CHECK(skipped == std::set<std::string>{".git", "cat/.ipynb_checkpoints", "dog/.thumb.png"});
  write_tar(folder / "a.tar", {{"./a/1.png", pairs[0].png}, {"./a/.old/1.png", pairs[0].png}, {"../.2.png", pairs[0].png}});
  PictureStream stream({folder / "a.tar"});
  std::vector<std::string> left_out;
  int count = 0;
  for (EncodedPicture p; stream.next(p);) p.damage.empty() ? void(++count) : left_out.push_back(p.name);
  CHECK(count == 1);
  CHECK(left_out == std::vector<std::string>{(folder / "a.tar") + ":./a/.old/1.png", (folder / "a.tar") + ":../.2.png"});
}

TEST_CASE("a header that cannot be read and a hole of zeros in the middle of a tar are damage, to data sets and to streams", "[data]") {
  const TemporaryFolder folder;
  const std::vector<ToyPair> pairs = toy_pairs(6);
  write_tar(folder / "s.tar", members_of(pairs, 0, 6));
  const std::string whole = read_file(folder / "s.tar");
  const std::size_t third = whole.find("02.png"), fourth = whole.find("03.png");
  REQUIRE(third % 512 == 0);
  REQUIRE(fourth % 512 == 0);
  std::string header = whole, junk = whole, hole = whole;
  header[third + 20] ^= 1;
  std::fill(junk.begin() + static_cast<std::ptrdiff_t>(third), junk.begin() + static_cast<std::ptrdiff_t>(fourth), '\xAB');
  std::fill(hole.begin() + static_cast<std::ptrdiff_t>(third), hole.begin() + static_cast<std::ptrdiff_t>(fourth), '\0');
  const std::string packing = GENERATE("none", "gzip", "zstd");
  CAPTURE(packing);
  const auto check = [&](const std::string& bytes, std::int64_t before, const std::string& why) {
    write_text(folder / (packing == "none" ? "bad.tar" : "plain.tar"), bytes);
    if (packing == "gzip") gzip(folder / "plain.tar", folder / "bad.tar");
    if (packing == "zstd") zstd(folder / "plain.tar", folder / "bad.tar");
    DatasetOptions streamed;
    streamed.compressed = "stream";
    const auto data = open_dataset(folder / "bad.tar", streamed);
    CHECK(data->size() == before);
    REQUIRE(data->skipped().size() == 1);
    CHECK_THAT(data->skipped()[0].reason, Contains("the shard is damaged after " + std::to_string(before) + " samples: " + why));
    PictureStream stream({folder / "bad.tar", folder / "s.tar"});
    std::vector<std::string> damage;
    int count = 0;
    for (EncodedPicture p; stream.next(p);) p.damage.empty() ? void(++count) : damage.push_back(p.damage);
    CHECK(count == before + 6);
    REQUIRE(damage.size() == 1);
    CHECK_THAT(damage[0], Contains("the tar is damaged: " + why));
  };
  {
    write_tar(folder / "plain.tar", members_of(pairs, 0, 6));
    gzip(folder / "plain.tar", folder / "sound.tar");
    PictureStream stream({folder / "sound.tar"});
    int count = 0;
    for (EncodedPicture p; stream.next(p); ++count) CHECK(p.damage.empty());
    CHECK(count == 6);
  }
  check(header, 2, "Damaged tar archive");
  check(junk, 2, "Damaged tar archive");
  check(hole, 2, "there is more behind its end");
  check(whole + whole, 6, "there is more behind its end");
  // The second tar cut within what is packed.
  gzip(folder / "s.tar", folder / "one.gz");
  const std::string packed = read_file(folder / "one.gz");
  write_text(folder / "cut.tar", packed + packed.substr(0, packed.size() / 2));
  PictureStream stream({folder / "cut.tar"});
  std::string damage;
  for (EncodedPicture p; stream.next(p);) damage += p.damage;
  CHECK_THAT(damage, Contains("the tar is damaged: "));
}

// As a user who may not read everything, where the tests have all rights.
class AsNobody {
 public:
  AsNobody() : root_(::geteuid() == 0) {
    if (root_) done_ = ::seteuid(65534) == 0;
  }
  ~AsNobody() {
    if (root_ && done_) static_cast<void>(::seteuid(0) == 0);
  }
  AsNobody(const AsNobody&) = delete;
  AsNobody& operator=(const AsNobody&) = delete;
  bool done() const { return done_; }

 private:
  bool root_, done_ = true;
};

TEST_CASE("folders and captions that cannot be read are left out and told", "[data]") {
  const TemporaryFolder folder;
  const auto pairs = toy_pairs(3);
  write_toy_folder(folder / "data", pairs);
  using std::filesystem::perms;
  std::filesystem::permissions(folder.path(), perms::owner_all | perms::group_exec | perms::others_exec);
  std::filesystem::remove(folder / "data/01.txt");
  std::filesystem::create_symlink("nowhere.txt", folder / "data/01.txt");
  std::filesystem::create_directory(folder / "data/secret");
  write_text(folder / "data/secret/x.png", pairs[0].png);
  for (const char* name : {"data/secret", "data/02.txt"}) std::filesystem::permissions(folder / name, std::filesystem::perms::none);
  {
    const AsNobody nobody;
    if (!nobody.done()) {
      WARN("skipped: no right to be another user");
      return;
    }
    const auto data = open_dataset(folder / "data");
    CHECK(data->size() == 1);
    std::map<std::string, std::string> reasons;
    for (const SkippedSample& s : data->skipped()) reasons[s.key] = s.reason;
    REQUIRE(reasons.size() == 3);
    CHECK_THAT(reasons["01.png"], Contains("the caption cannot be read: ") && Contains("No such file") && Contains("data/01.txt"));
    CHECK_THAT(reasons["02.png"], Contains("the caption cannot be read: ") && Contains("Permission denied"));
    CHECK_THAT(reasons["secret"], Contains("the folder cannot be read: Permission denied"));
    PictureStream stream({folder / "data"});
    int count = 0;
    for (EncodedPicture p; stream.next(p);) count += p.damage.empty() ? 1 : 100;
    CHECK(count == 103);
    CHECK_THROWS_WITH(open_dataset(folder / "data/secret"), Contains("the folder cannot be read: Permission denied"));
  }
  std::filesystem::permissions(folder / "data/secret", std::filesystem::perms::owner_all);
}

}  // namespace
}  // namespace twinlens::test
