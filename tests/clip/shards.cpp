// Indices of shards: kept, checked, made anew; what lies in damaged or hostile tars; several captions.

#include <catch2/catch.hpp>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <map>
#include <random>

#include "clip/src/data/captions.h"
#include "clip/src/data/shard_index.h"
#include "clip/src/data/shard_stream.h"
#include "clip/src/data/tar_index.h"
#include "tests/support/temporary_folder.h"
#include "tests/support/toy_tars.h"

#include "twinlens/clip/dataset.h"
#include "twinlens/core/file.h"
#include "twinlens/kernels/error.h"

namespace twinlens::test {
namespace {

namespace fs = std::filesystem;
using Catch::Contains;

std::vector<std::string> keys_of(const Dataset& data) {
  std::vector<std::string> out;
  for (std::int64_t i = 0; i < data.size(); ++i) out.push_back(data.key(i) + "=" + data.caption(i));
  return out;
}

TEST_CASE("announced pictures stay while so many blocks may be in use", "[data]") {
  const TemporaryFolder folder;
  const auto pairs = toy_pairs(12);
  write_tar(folder / "s.tar", members_of(pairs, 0, 12));
  gzip(folder / "s.tar", folder / "s.tar.gz");
  const std::string shard = folder / "s.tar.gz";
  ShardStreams streams({shard}, open_indices({shard}, CaptionRules{DatasetOptions{}}));
  for (std::int64_t i = 0; i < 11; ++i) streams.read_ahead({{0, i}}, 10);
  const auto all_are_there = [&] {
    for (std::int64_t i = 1; i < 11; ++i) CHECK(streams.read_image(0, i) == pairs[static_cast<std::size_t>(i)].png);
  };
  all_are_there();
  fs::remove(shard);
  all_are_there();
  // (Of the first one only: an open stream may stand before any other.)
  CHECK_THROWS_AS(streams.read_image(0, 0), FileError);
}

TEST_CASE("a shard is indexed once: the index lies beside it and is used while the shard stays the same", "[data]") {
  const TemporaryFolder folder;
  auto pairs = toy_pairs(6);
  const std::string shard = folder / "a.tar", index = index_path_beside(shard);
  write_tar(shard, members_of(pairs, 0, 6));
  make_old(shard);
  const auto expected = keys_of(*open_dataset(shard));
  REQUIRE(fs::exists(index));
  const auto made = fs::last_write_time(index);
  CHECK(keys_of(*open_dataset(shard)) == expected);
  CHECK(fs::last_write_time(index) == made);
  // That it is used: an index of four samples that claims to be of this shard.
  const std::string six = read_file(index);
  write_tar(folder / "b.tar", members_of(pairs, 0, 4));
  const CaptionRules rules{DatasetOptions{}};
  ShardIndexBuilder builder(false);
  builder.add("made/up", {512, 10}, {512, 10}, {}, {{"a caption", 0}}, "");
  const InputFile file(shard);
  write_text(index, builder.finish(file.size(), file.modified(), file.size(), rules.digest()));
  CHECK(open_dataset(shard)->key(0) == "a.tar:made/up");
  // Made anew when the shard is another one, of the same size or not.
  pairs[2].caption[3] = 'X';
  write_tar(shard, members_of(pairs, 0, 6));
  fs::last_write_time(shard, fs::last_write_time(shard) - std::chrono::hours(2));
  CHECK(open_dataset(shard)->caption(2) == pairs[2].caption);
  CHECK(read_file(index).size() == six.size());
  CHECK(read_file(index) != six);
  write_tar(shard, members_of(pairs, 0, 5));
  CHECK(open_dataset(shard)->size() == 5);
  // ... and when captions come from elsewhere.
  DatasetOptions options;
  options.json_text_key = "group";
  CHECK(open_dataset(shard, options)->caption(1) == "g1");
  CHECK(open_dataset(shard)->caption(1) == pairs[1].caption);
}

TEST_CASE("an index that is damaged is made anew; none can crash or mislead", "[data]") {
  const TemporaryFolder folder;
  const auto pairs = toy_pairs(5);
  const std::string shard = folder / "a.tar", index = index_path_beside(shard);
  write_tar(shard, members_of(pairs, 0, 5));
  make_old(shard);
  const auto expected = keys_of(*open_dataset(shard));
  const std::string good = read_file(index);
  for (std::size_t at = 0; at < good.size(); at += 1 + good.size() / 97) {
    std::string bad = good;
    bad[at] = static_cast<char>(bad[at] ^ 0x55);
    CHECK_THROWS_AS(ShardIndex::from_bytes(bad, "index"), FileError);
    CHECK_THROWS_AS(ShardIndex::from_bytes(good.substr(0, at), "index"), FileError);
  }
  CHECK_THROWS_AS(ShardIndex::from_bytes(good + "x", "index"), FileError);
  for (const std::string& bad : {std::string(), good.substr(0, good.size() / 2), std::string(5000, '\xFF')}) {
    write_text(index, bad);
    CHECK(keys_of(*open_dataset(shard)) == expected);
    CHECK(read_file(index) == good);
  }
  // Right sums, offsets that lead out of the shard.
  const CaptionRules rules{DatasetOptions{}};
  for (const Member& member : {Member{1U << 20, 10}, Member{~std::uint64_t{0} - 4, 10}, Member{512, ~0U}}) {
    ShardIndexBuilder builder(false);
    builder.add("k", member, {0, 1}, {}, {{"t", 0}}, "");
    CHECK_THROWS_WITH(ShardIndex::from_bytes(builder.finish(10'000, 1, 10'000, rules.digest()), "index"), Contains("outside of the shard"));
  }
}

TEST_CASE("where the shard's place cannot be written, its index goes to the cache folder", "[data]") {
  const TemporaryFolder folder;
  const auto pairs = toy_pairs(3);
  // A name as long as names may be leaves no room for the index's (root may write anywhere, so permissions cannot be the test).
  const std::string shard = folder / (std::string(251, 'n') + ".tar");
  write_tar(shard, members_of(pairs, 0, 3));
  make_old(shard);
  const char* before = std::getenv("XDG_CACHE_HOME");
  const std::string saved = before != nullptr ? before : "";
  ::setenv("XDG_CACHE_HOME", (folder / "cache").c_str(), 1);
  CHECK(open_dataset(shard)->size() == 3);
  CHECK(fs::exists(index_path_in_cache(shard)));
  CHECK(open_dataset(shard)->size() == 3);
  // No place at all: it works, and is made again next time.
  write_text(folder / "file", "x");
  ::setenv("XDG_CACHE_HOME", (folder / "file").c_str(), 1);
  CHECK(open_dataset(shard)->size() == 3);
  before != nullptr ? ::setenv("XDG_CACHE_HOME", saved.c_str(), 1) : ::unsetenv("XDG_CACHE_HOME");
}

TEST_CASE("hostile tars: names that are paths, empty members, keys that come twice, members cut short", "[data]") {
  const TemporaryFolder folder;
  const auto pairs = toy_pairs(4);
  const std::string& png = pairs[0].png;
  write_tar(folder / "a.tar",
            {{"../../etc/passwd.png", png},
             {"../../etc/passwd.txt", "outside"},
             {"/root/x.png", png},
             {"/root/x.txt", "absolute"},
             {"line\nbreak\tkey.png", png},
             {"line\nbreak\tkey.txt", "odd name"},
             {"empty.png", ""},
             {"empty.txt", "a picture of no bytes"},
             {"blank.png", png},
             {"blank.txt", ""},
             {"twice.png", png},
             {"twice.txt", "first"},
             {"twice.png", pairs[1].png},
             {"twice.txt", "second"},
             {"lost.png", png},
             {"other.txt", "x"},
             {"lost.txt", "comes too late"}},
            ARCHIVE_FORMAT_TAR_PAX_INTERCHANGE);
  const auto data = open_dataset(folder / "a.tar");
  CHECK(keys_of(*data) == std::vector<std::string>{"a.tar:../../etc/passwd=outside", "a.tar:/root/x=absolute",
                                                   "a.tar:line\nbreak\tkey=odd name", "a.tar:twice=first", "a.tar:twice=second"});
  CHECK(data->image_bytes(4) == pairs[1].png);  // (names are names: nothing is ever opened by them)
  std::vector<std::string> reasons;
  for (const SkippedSample& s : data->skipped()) reasons.push_back(s.key + ": " + s.reason);
  CHECK(reasons == std::vector<std::string>{"a.tar:empty: the picture is empty (0 bytes)", "a.tar:blank: the caption is empty",
                                            "a.tar:lost: its picture and its caption do not lie next to each other; pack the tar anew with "
                                            "tar --sort=name",
                                            "a.tar:other: no picture (jpg, png, jpeg or webp)"});

  // Cut anywhere: what was whole before the cut, and the shard noted as damaged unless the cut is at a member's end; an error where that is
  // nothing; never more, never a crash.
  const std::string whole = read_file(folder / "a.tar");
  int refused = 0;
  for (std::size_t size = 0; size < whole.size(); size += 1 + whole.size() / 61) {
    write_text(folder / "cut.tar", whole.substr(0, size));
    try {
      const auto cut = open_dataset(folder / "cut.tar");  // (CHECK would keep the exception)
      CHECK(cut->size() <= 5);
      for (std::int64_t i = 0; i < cut->size(); ++i) CHECK(cut->image_bytes(i) == data->image_bytes(i));
      const auto& skipped = cut->skipped();
      if (!skipped.empty() && skipped.back().key == "cut.tar") ++refused;
    } catch (const FileError& e) {
      ++refused;
      CHECK_THAT(e.what(), Contains("cut.tar"));
    }
  }
  CHECK(refused > 20);
  // A shard that is changed after it was indexed is noticed when it is read.
  write_tar(folder / "late.tar", members_of(pairs, 0, 4));
  const auto late = open_dataset(folder / "late.tar");
  write_tar(folder / "late.tar", members_of(pairs, 1, 4));
  CHECK_THROWS_WITH(late->image_bytes(0), Contains("has changed since it was indexed") && Contains("late.tar"));
}

TEST_CASE("a damaged shard among others: what lies before the damage is used, the rest is one skipped sample", "[data]") {
  const TemporaryFolder folder;
  // Pictures that do not compress, so that several blocks of compressed data are whole.
  std::mt19937 random(1);
  Members members;
  for (int i = 0; i < 20; ++i) {
    std::string picture(30'000, '\0');
    for (char& c : picture) c = static_cast<char>(random());
    members.emplace_back(std::to_string(i) + ".png", picture);
    members.emplace_back(std::to_string(i) + ".txt", "caption " + std::to_string(i));
  }
  write_tar(folder / "s.tar", members);
  gzip(folder / "s.tar", folder / "s.tar.gz");
  zstd(folder / "s.tar", folder / "s.tar.zst");
  write_tar(folder / "good.tar", members_of(toy_pairs(3), 0, 3));
  for (const std::string ending : {".tar", ".tar.gz", ".tar.zst"}) {
    const std::string whole = read_file(folder / ("s" + ending)), bad = "bad" + ending;
    for (const char* form : {"unpack", "stream"}) {
      DatasetOptions o;
      o.compressed = form;
      const auto open = [&](const std::string& bytes) {
        write_text(folder / bad, bytes);
        return open_dataset((folder / bad) + "::" + (folder / "good.tar"), o);
      };
      INFO(bad << " " << form);
      const auto cut = open(whole.substr(0, whole.size() * 6 / 10));
      CHECK(cut->size() > 3 + 4);
      CHECK(cut->size() < 3 + 13);
      for (std::int64_t i = 0; i + 3 < cut->size(); ++i) {
        CHECK(cut->image_bytes(i) == members[static_cast<std::size_t>(2 * i)].second);
        CHECK(cut->caption(i) == "caption " + std::to_string(i));
      }
      CHECK(cut->key(cut->size() - 1) == "good.tar:02");
      CHECK(cut->image_bytes(cut->size() - 1) == toy_pairs(3)[2].png);
      REQUIRE(cut->skipped().size() == 1);
      CHECK(cut->skipped()[0].key == bad);
      CHECK_THAT(cut->skipped()[0].reason,
                 Contains("the shard is damaged after " + std::to_string(cut->size() - 3) + " samples: ") && Contains("fetch it again"));
      // Nothing of it.
      for (const std::string& bytes : {std::string(), std::string(5000, 'x'), whole.substr(0, 100)}) {
        const auto rest = open(bytes);
        CHECK(rest->size() == 3);
        REQUIRE(rest->skipped().size() == 1);
        CHECK_THAT(rest->skipped()[0].reason, Contains("the shard is damaged before its first sample: "));
        CHECK_THROWS_WITH(open_dataset(folder / bad, o), Contains("no samples; ") && Contains(bad + ": the shard is damaged"));
      }
    }
  }
  // Its index is not kept: the damage may have been one of reading.
  write_text(folder / "old.tar", read_file(folder / "s.tar").substr(0, 100'000));
  make_old(folder / "old.tar");
  CHECK(open_dataset(folder / "old.tar")->size() == 3);
  CHECK_FALSE(fs::exists(index_path_beside(folder / "old.tar")));
}

TEST_CASE("other extensions, and captions from .json: one or several, by every policy", "[data]") {
  const TemporaryFolder folder;
  const auto pairs = toy_pairs(5);
  const std::string& png = pairs[0].png;
  write_tar(folder / "a.tar", {{"0.json", R"({"long": "zero long", "short": "zero", "all": ["zero a", " zero b ", 7, ""]})"},
                               {"0.png", png},
                               {"0.txt", "not this"},
                               {"1.json", R"({"long": "  ", "short": "one"})"},
                               {"1.png", png},
                               {"2.json", R"({"long": null})"},
                               {"2.png", png},
                               {"3.json", "{damaged"},
                               {"3.png", png},
                               {"4.png", png},
                               {"4.txt", "no json"}});
  DatasetOptions o;
  o.json_text_key = "long; short ;all";
  const auto first = open_dataset(folder / "a.tar", o);
  CHECK(keys_of(*first) == std::vector<std::string>{"a.tar:0=zero long", "a.tar:1=one"});
  CHECK(first->drawn_caption(0, 12345) == "zero long");
  REQUIRE(first->skipped().size() == 3);
  CHECK(first->skipped()[0].reason == "no caption in its .json under the keys of --json-text-key");
  CHECK(first->skipped()[2].reason == "no caption (json) among png and txt");

  o.captions = "random";
  const auto random = open_dataset(folder / "a.tar", o);
  std::map<std::string, int> drawn;
  for (std::uint64_t draw = 0; draw < 4000; ++draw) {
    const std::string text = random->drawn_caption(0, draw);
    ++drawn[text];
    // The id goes with the text.
    if (text == "zero") CHECK(random->drawn_caption_id(0, draw) == caption_id_of("zero"));
  }
  CHECK(drawn.size() == 4);
  for (const auto& [text, count] : drawn) CHECK(std::abs(count - 1000) < 150);

  o.captions = "all";
  CHECK(keys_of(*open_dataset(folder / "a.tar", o)) ==
        std::vector<std::string>{"a.tar:0=zero long", "a.tar:0=zero", "a.tar:0=zero a", "a.tar:0=zero b", "a.tar:1=one"});
  CHECK(open_dataset(folder / "a.tar", o)->image_bytes(3) == png);

  // Weights: by key, shared within a list; keys of weight 0 stand in only when there is nothing else.
  o.captions = "first";
  o.json_text_key_probs = {0.75, 0.0, 0.25};
  const auto weighted = open_dataset(folder / "a.tar", o);
  drawn.clear();
  for (std::uint64_t draw = 0; draw < 4000; ++draw) ++drawn[weighted->drawn_caption(0, draw)];
  CHECK(drawn.size() == 3);
  CHECK(std::abs(drawn["zero long"] - 3000) < 150);
  CHECK(std::abs(drawn["zero b"] - 500) < 100);
  CHECK(weighted->drawn_caption(1, 5) == "one");

  o.json_text_key_probs = {1, 1, 1, 1};
  CHECK_THROWS_WITH(open_dataset(folder / "a.tar", o), Contains("4 weights for 3 keys"));
  o.json_text_key_probs = {0.0};
  CHECK_THROWS_WITH(open_dataset(folder / "a.tar", o), Contains("all weights are 0"));
  o = {};
  o.captions = "best";
  CHECK_THROWS_WITH(open_dataset(folder / "a.tar", o), Contains("unknown policy 'best'"));
  o = {};
  o.image_key = "seg.png;jpg";
  o.text_key = "cap;txt";
  write_tar(folder / "b.tar", {{"0.seg.png", png}, {"0.png", "no"}, {"0.cap", " "}, {"0.txt", "fallback"}});
  CHECK(keys_of(*open_dataset(folder / "b.tar", o)) == std::vector<std::string>{"b.tar:0=fallback"});
}

// Bytes of this process in memory.
// AddressSanitizer keeps freed memory for a while, so that resident memory says nothing under it.
#if defined(TWINLENS_SANITIZED)
constexpr bool kResidentCounts = false;
#else
constexpr bool kResidentCounts = true;
#endif

std::size_t resident() {
  std::ifstream statm("/proc/self/statm");
  std::size_t total = 0, pages = 0;
  statm >> total >> pages;
  return pages * 4096;
}

// Shards of which only the index is there; captions of about 60 bytes stay in the (sparse) tar.
void check_memory(std::int64_t samples, std::int64_t per_shard, std::size_t limit) {
  const TemporaryFolder folder;
  const CaptionRules rules{DatasetOptions{}};
  const std::int64_t shards = samples / per_shard;
  for (std::int64_t s = 0; s < shards; ++s) {
    char name[32];
    std::snprintf(name, sizeof name, "%05d.tar", static_cast<int>(s));
    const std::string path = folder / name;
    write_text(path, "");
    fs::resize_file(path, static_cast<std::uintmax_t>(per_shard) * 25'600);
    ShardIndexBuilder builder(false);
    for (std::int64_t i = 0; i < per_shard; ++i) {
      const auto at = static_cast<std::uint64_t>(i) * 25'600;
      builder.add(std::to_string(100'000'000 + s * per_shard + i), {at + 512, 20'000}, {at + 21'000, 60}, {at + 22'000, 700},
                  {{"caption " + std::to_string(s * per_shard + i), 0}}, "");
    }
    const InputFile file(path);
    write_text(index_path_beside(path), builder.finish(file.size(), file.modified(), file.size(), rules.digest()));
  }
  const std::size_t before = resident();
  char last[32];
  std::snprintf(last, sizeof last, "%05d", static_cast<int>(shards - 1));
  const auto data = open_dataset(folder / ("{00000.." + std::string(last) + "}.tar"));
  REQUIRE(data->size() == samples);
  std::uint64_t sum = 0;
  for (std::int64_t i = 0; i < samples; ++i) sum += static_cast<std::uint64_t>(data->caption_id(i));  // every page is touched
  const std::size_t used = resident() - before;
  INFO(samples << " samples: " << used / 1'000'000 << " MB (sum " << sum << ")");
  WARN(samples << " samples take " << used / 1'000'000 << " MB of index, " << used / static_cast<std::size_t>(samples) << " bytes each");
  if (kResidentCounts) CHECK(used < limit);
  CHECK(data->key(samples - 1) == std::string(last) + ".tar:" + std::to_string(100'000'000 + samples - 1));
}

TEST_CASE("the index of a sample takes less than 200 bytes", "[data]") { check_memory(100'000, 10'000, 20'000'000); }

TEST_CASE("10 million samples take less than 2 GB of index", "[.full]") { check_memory(10'000'000, 100'000, 2'000'000'000); }

TEST_CASE("a table's rows take no memory for their text", "[data]") {
  const TemporaryFolder folder;
  write_text(folder / "x.png", toy_pairs(1)[0].png);
  constexpr int kRows = 200'000;
  {
    std::ofstream out(folder / "a.csv");
    out << "filepath,title\n";
    for (int i = 0; i < kRows; ++i) out << "x.png,\"" << std::string(200, 'c') << ", number " << i << "\"\n";
  }
  const std::size_t before = resident();
  const auto data = open_dataset(folder / "a.csv");
  const std::size_t used = resident() - before;
  REQUIRE(data->size() == kRows);
  WARN(kRows << " rows of " << fs::file_size(folder / "a.csv") / kRows << " bytes take " << used / kRows << " bytes each");
  if (kResidentCounts) CHECK(used < std::size_t{kRows} * 100);
  CHECK(data->caption(kRows - 1) == std::string(200, 'c') + ", number 199999");
  CHECK(data->key(0) == "a.csv:2");
}

TEST_CASE("tables: a quote that is never closed, pictures that are nowhere", "[data]") {
  const TemporaryFolder folder;
  write_text(folder / "x.png", toy_pairs(1)[0].png);
  write_text(folder / "a.csv", "filepath,title\nx.png,fine\nx.png,\"" + std::string(3'000'000, 'c') + "\n");
  const auto data = open_dataset(folder / "a.csv");
  CHECK(data->size() == 1);
  REQUIRE(data->skipped().size() == 1);
  CHECK_THAT(data->skipped()[0].reason, Contains("the row is longer than") && Contains("line 3: close it"));
  write_text(folder / "b.csv", "filepath,title\nno/1.png,a\nno/2.png,b\n");
  const std::string said = "none of 2 pictures exists; " + (folder / "b.csv") + ", column 'filepath', begins with ";
  CHECK_THROWS_WITH(
      open_dataset(folder / "b.csv"),
      Contains(said + "'no/1.png', looked for as " + (folder / "no/1.png") + "; paths are relative to the folder of the table") &&
          Contains("put the table where they begin, write whole paths, or name another column with --csv-img-key"));
  // Some that are not there cost themselves alone, wherever they lie; a line of blanks is none.
  std::string rows = "filepath,title\n";
  for (int i = 0; i < 150; ++i) rows += "no/1.png,a\n";
  write_text(folder / "c.csv", rows + "x.png,a\nx.png,b\n  \n");
  const auto some = open_dataset(folder / "c.csv");
  CHECK(some->size() == 152);
  CHECK(some->skipped().empty());
  CHECK(some->image_bytes(151) == toy_pairs(1)[0].png);
  // Paths as seen from where the program was started.
  fs::create_directory(folder / "tables");
  write_text(folder / "tables/b.csv", "filepath,title\nx.png,a\n");
  const fs::path before = fs::current_path();
  fs::current_path(folder.path());
  const auto from_here = open_dataset("tables/b.csv");
  fs::current_path(before);
  CHECK(from_here->image_bytes(0) == toy_pairs(1)[0].png);
}

}  // namespace
}  // namespace twinlens::test
