// Every form of data a user may have: tars of all dialects, CSV and TSV, folders; and what is wrong with them.

#include <catch2/catch.hpp>
#include <filesystem>
#include <set>

#include "tests/support/temporary_folder.h"
#include "tests/support/toy_data.h"
#include "tests/support/toy_tars.h"

#include "twinlens/clip/dataset.h"
#include "twinlens/clip/picture_stream.h"
#include "twinlens/core/file.h"
#include "twinlens/kernels/error.h"

namespace twinlens::test {
namespace {

using Catch::Contains;
void check_holds(const Dataset& data, const std::vector<ToyPair>& pairs) {
  REQUIRE(data.size() == static_cast<std::int64_t>(pairs.size()));
  std::set<std::int64_t> ids;
  for (std::int64_t i = 0; i < data.size(); ++i) {
    const ToyPair& pair = pairs[static_cast<std::size_t>(i)];
    INFO(data.key(i));
    CHECK(data.image_bytes(i) == pair.png);
    CHECK(data.caption(i) == pair.caption);
    ids.insert(data.caption_id(i));
  }
  CHECK(ids.size() == pairs.size());  // all captions differ
}

TEST_CASE("tars of every dialect", "[data]") {
  const TemporaryFolder folder;
  const auto pairs = toy_pairs(4);
  for (const auto& [name, format] :
       {std::pair{"ustar", ARCHIVE_FORMAT_TAR_USTAR}, {"pax", ARCHIVE_FORMAT_TAR_PAX_INTERCHANGE}, {"gnu", ARCHIVE_FORMAT_TAR_GNUTAR}}) {
    INFO(name);
    const std::string path = folder / (std::string(name) + ".tar");
    write_tar(path, members_of(pairs, 0, 4), format);
    const auto data = open_dataset(path);
    check_holds(*data, pairs);
    CHECK(data->key(1) == std::string(name) + ".tar:01");
    CHECK(data->field(3, "group") == "g1");
    CHECK(data->field(3, "n") == "3");
    CHECK(data->field(3, "other").empty());
    CHECK(data->skipped().empty());
  }
}

TEST_CASE("long and foreign names in tars", "[data]") {
  const TemporaryFolder folder;
  const auto pairs = toy_pairs(2);
  const std::string deep = std::string(60, 'd') + "/" + std::string(150, 'n'), foreign = "größe/東京";
  for (const int format : {ARCHIVE_FORMAT_TAR_PAX_INTERCHANGE, ARCHIVE_FORMAT_TAR_GNUTAR}) {
    write_tar(folder / "long.tar",
              {{deep + ".png", pairs[0].png},
               {deep + ".txt", pairs[0].caption},
               {foreign + ".PNG", pairs[1].png},
               {foreign + ".txt", pairs[1].caption}},
              format);
    const auto data = open_dataset(folder / "long.tar");
    check_holds(*data, pairs);
    CHECK(data->key(0) == "long.tar:" + deep);
    CHECK(data->key(1) == "long.tar:" + foreign);
  }
}

TEST_CASE("members of a tar that make no sample", "[data]") {
  const TemporaryFolder folder;
  const auto pairs = toy_pairs(3);
  // The key ends at the first dot of the base name; folders, names without an extension, hidden names and those between __ are not samples;
  // a name that comes again begins a new sample.
  write_tar(folder / "a.tar", {{"x.y/", ""},
                               {"x.y/__meta__.txt", "no"},
                               {".hidden.txt", "no"},
                               {"README", "no"},
                               {"x.y/__one.seg.png", "not this one"},
                               {"x.y/__one.png", pairs[0].png},
                               {"x.y/__one.txt", pairs[0].caption},
                               {"x.y/two.txt", "a caption without a picture"},
                               {"x.y/three.png", pairs[1].png},
                               {"x.y/four.png", pairs[1].png},
                               {"x.y/four.txt", " \n\t"},
                               {"x.y/five.jpeg", pairs[1].png},
                               {"x.y/five.txt", pairs[1].caption},
                               {"x.y/five.webp", pairs[0].png},
                               {"x.y/five.txt", "again"},
                               {"six.png", pairs[2].png},
                               {"six.txt", pairs[2].caption}});
  const auto data = open_dataset(folder / "a.tar");
  check_holds(*data, pairs);
  CHECK(data->key(0) == "a.tar:x.y/__one");
  std::vector<std::string> skipped;
  for (const SkippedSample& s : data->skipped()) skipped.push_back(s.key + ": " + s.reason);
  CHECK(skipped == std::vector<std::string>{"a.tar:x.y/two: no picture (jpg, png, jpeg or webp)", "a.tar:x.y/three: no caption (txt)",
                                            "a.tar:x.y/four: the caption is empty", "a.tar:x.y/five: no picture (jpg, png, jpeg or webp)"});
}

TEST_CASE("shards without captions: the error lists what is there and names the flags for it", "[data]") {
  const TemporaryFolder folder;
  const std::string png = toy_pairs(1)[0].png;
  const auto refused = [&](const Members& members, const std::string& json_text_key = {}) {
    write_tar(folder / "a.tar", members);
    DatasetOptions options;
    options.json_text_key = json_text_key;
    std::string message;
    try {
      open_dataset(folder / "a.tar", options);
    } catch (const FileError& e) {
      message = e.what();
    }
    return message;
  };
  CHECK_THAT(refused({{"0.cls", "3"}, {"0.webp", png}, {"1.cls", "0"}, {"1.webp", png}}),
             Contains("(2 cannot be used, first: a.tar:0: no caption (txt) among cls and webp); labels in .cls members are for eval --task "
                      "zeroshot --text-key cls --label cls --classes classnames.txt; captions of another extension"));
  CHECK_THAT(refused({{"0.caption", "a disc"}, {"0.json", "{}"}, {"0.png", png}}),
             Contains("no caption (txt) among caption, json and png); name the extension of the captions by --text-key, or the fields"));
  CHECK_THAT(refused({{"0.png", png}, {"0.txt", "a disc"}}, "caption"),
             Contains("no caption (json) among png and txt); --json-text-key reads .json members alone; leave it out"));
  CHECK_THAT(refused({{"0.png", png}}), Contains("no caption (txt)); a sample is KEY.jpg"));
  Members many{{"0.png", png}};
  for (char c = 'a'; c < 'm'; ++c) many.emplace_back(std::string("0.") + c, "x");
  CHECK_THAT(refused(many), Contains("among a, b, c, d, e, f, g, h and 5 more)"));
}

TEST_CASE("brace ranges, :: and gzip", "[data]") {
  const TemporaryFolder folder;
  const auto pairs = toy_pairs(12);
  for (std::size_t shard = 0; shard < 4; ++shard)
    write_tar(folder / ("s-0" + std::to_string(8 + shard) + ".tar"), members_of(pairs, shard * 3, shard * 3 + 3));
  // 08 09 010 011: the width of the first number, and longer ones as they are.
  std::filesystem::rename(folder / "s-010.tar", folder / "s-10.tar");
  std::filesystem::rename(folder / "s-011.tar", folder / "s-11.tar");
  check_holds(*open_dataset(folder / "s-{08..11}.tar"), pairs);
  check_holds(*open_dataset((folder / "s-{08..09}.tar") + "::" + (folder / "s-1{0..1}.tar")), pairs);
  check_holds(*open_dataset((folder / "s-08.tar") + "::" + (folder / "s-09.tar") + "::" + (folder / "s-{10..11}.tar")), pairs);
  CHECK_THROWS_WITH(open_dataset(folder / "s-{08..12}.tar"), Contains("s-12.tar") && Contains("No such file"));
  CHECK_THROWS_WITH(open_dataset(folder / "s-{a..c}.tar"), Contains("brace range '{a..c}' is not of numbers"));
  check_holds(*open_dataset(folder / "s-{08,09,10,11}.tar"), pairs);
  std::filesystem::create_directories(folder / "{a,b}");
  std::filesystem::copy_file(folder / "s-08.tar", folder / "{a,b}/{1..2}.tar");
  CHECK(open_dataset(folder / "{a,b}/{1..2}.tar")->size() == 3);
  CHECK_THROWS_WITH(open_dataset("pipe:cat " + (folder / "s-08.tar")), Contains("the output of a command is not read; pipe:cat "));
  CHECK_THROWS_WITH(open_dataset("s3://bucket/{00..01}.tar"), Contains("data at an address is not read; s3://bucket/00.tar; shards are"));

  gzip(folder / "s-09.tar", folder / "s-09.tar.gz");
  const auto mixed = open_dataset((folder / "s-08.tar") + "::" + (folder / "s-09.tar.gz") + "::" + (folder / "s-{10..11}.tar"));
  check_holds(*mixed, pairs);
  CHECK(mixed->key(4) == "s-09.tar.gz:04");
  CHECK(mixed->field(4, "n") == "4");
  CHECK(open_dataset(folder / "s-09.tar.gz")->size() == 3);
  const std::string whole = read_file(folder / "s-09.tar.gz");
  write_text(folder / "cut.tar.gz", whole.substr(0, whole.size() / 2));
  CHECK_THROWS_WITH(open_dataset(folder / "cut.tar.gz"), Contains("the compressed data is cut short") && Contains("cut.tar.gz"));
}

TEST_CASE("braces in braces, and patterns", "[data]") {
  const TemporaryFolder folder;
  const auto pairs = toy_pairs(12);
  const std::vector<std::string> names{"a-0.tar", "a-1.tar", "b-7.tar", "c{x}.tar"};
  for (std::size_t shard = 0; shard < 4; ++shard) write_tar(folder / names[shard], members_of(pairs, shard * 3, shard * 3 + 3));
  check_holds(*open_dataset(folder / "{{a-{0..1},b-7},c{x}}.tar"), pairs);
  // The order is that of the names, whatever the folder's is.
  check_holds(*open_dataset(folder / "*.tar"), pairs);
  check_holds(*open_dataset((folder / "{a,b}-?.tar") + "::" + (folder / "[c-z]*.tar")), pairs);
  CHECK(open_dataset(folder / "{a,c}*.tar")->size() == 9);
  CHECK_THROWS_WITH(open_dataset(folder / "d*.tar"), Contains("no file has such a name; " + (folder / "d*.tar") + "; check"));
  // A name that has such characters is that file.
  std::filesystem::copy_file(folder / "a-0.tar", folder / "[ab]-?.tar");
  CHECK(open_dataset(folder / "[ab]-?.tar")->size() == 3);
  CHECK_THROWS_WITH(open_dataset("s3://bucket/*.tar"), Contains("data at an address is not read; s3://bucket/*.tar; shards are"));
}

TEST_CASE("damaged and foreign shards", "[data]") {
  const TemporaryFolder folder;
  const auto pairs = toy_pairs(4);
  write_tar(folder / "a.tar", members_of(pairs, 0, 4));
  const std::string whole = read_file(folder / "a.tar");
  write_text(folder / "cut.tar", whole.substr(0, whole.size() / 2 + 100));
  const auto cut = open_dataset(folder / "cut.tar");
  check_holds(*cut, {pairs[0], pairs[1]});
  REQUIRE(cut->skipped().size() == 1);
  CHECK(cut->skipped()[0].key == "cut.tar");
  CHECK_THAT(cut->skipped()[0].reason, Contains("the shard is damaged after 2 samples: ") && Contains("fetch it again"));
  write_text(folder / "text.tar", std::string(3000, 'x'));
  CHECK_THROWS_WITH(open_dataset(folder / "text.tar"), Contains("text.tar"));
  write_tar(folder / "none.tar", {{"README", "nothing"}});
  CHECK_THROWS_WITH(open_dataset(folder / "none.tar"), Contains("no samples") && Contains("KEY.txt"));
}

TEST_CASE("the fingerprint changes when the data does", "[data]") {
  const TemporaryFolder folder;
  auto pairs = toy_pairs(4);
  write_tar(folder / "a.tar", members_of(pairs, 0, 4));
  const std::string first = open_dataset(folder / "a.tar")->fingerprint();
  CHECK(open_dataset(folder / "a.tar")->fingerprint() == first);
  pairs[2].caption[3] = 'X';
  write_tar(folder / "a.tar", members_of(pairs, 0, 4));
  CHECK(open_dataset(folder / "a.tar")->fingerprint() != first);
  write_tar(folder / "a.tar", members_of(pairs, 0, 3));
  CHECK(open_dataset(folder / "a.tar")->fingerprint() != first);
}

TEST_CASE("CSV and TSV: separators, aliases, quotes", "[data]") {
  const TemporaryFolder folder;
  const auto pairs = toy_pairs(3);
  std::filesystem::create_directory(folder / "p");
  for (const ToyPair& pair : pairs) write_text(folder / ("p/" + pair.name + ".png"), pair.png);
  const auto check = [&](const std::string& name, const std::string& text, const DatasetOptions& options = {}) {
    INFO(text);
    write_text(folder / name, text);
    const auto data = open_dataset(folder / name, options);
    check_holds(*data, pairs);
    return data;
  };
  const std::string a = pairs[0].caption, b = pairs[1].caption, c = pairs[2].caption;  // they have commas
  check("a.csv", "filepath,title\np/00.png,\"" + a + "\"\np/01.png,\"" + b + "\"\np/02.png,\"" + c + "\"\n");
  check("a.tsv", "title\timage\n" + a + "\tp/00.png\n" + b + "\tp/01.png\n" + c + "\tp/02.png");
  check("a.csv",
        "\xEF\xBB\xBFid;caption;path\r\n1;" + a + ";p/00.png\r\n2;" + b + ";p/01.png\r\n\r\n3;" + c + ";" + (folder / "p/02.png") + "\r\n");
  check("pipe.csv", "image_path|text\np/00.png|" + a + "\np/01.png|" + b + "\np/02.png|" + c + "\n");
  DatasetOptions named;
  named.csv_img_key = "where";
  named.csv_caption_key = "what";
  named.csv_separator = "\\t";
  const auto data = check(
      "odd.csv", "title,x\twhere\twhat\tclass\n1\tp/00.png\t" + a + "\tred\n2\tp/01.png\t" + b + "\tblue\n3\tp/02.png\t" + c + "\n", named);
  CHECK(data->key(1) == "odd.csv:3");
  CHECK(data->field(1, "class") == "blue");
  CHECK(data->field(2, "class").empty());
  CHECK(data->field(1, "nothing").empty());
}

TEST_CASE("CSV: quoted line breaks and quotes, bad rows, missing columns and pictures", "[data]") {
  const TemporaryFolder folder;
  const auto pairs = toy_pairs(2);
  write_text(folder / "x.png", pairs[0].png);
  write_text(folder / "a.csv",
             "filepath,title\nx.png,\"two \"\"fine\"\"\nlines, one row\"\nx.png\n,no picture\nx.png,\ngone.png,a ghost\n");
  const auto data = open_dataset(folder / "a.csv");
  REQUIRE(data->size() == 2);
  CHECK(data->caption(0) == "two \"fine\"\nlines, one row");
  CHECK_THROWS_WITH(data->image_bytes(1), Contains("gone.png") && Contains("No such file"));
  std::vector<std::string> reasons;
  for (const SkippedSample& s : data->skipped()) reasons.push_back(s.key + " " + s.reason);
  CHECK(reasons ==
        std::vector<std::string>{"a.csv:4 the row has 1 of 2 columns", "a.csv:5 the image path is empty", "a.csv:6 the caption is empty"});
  write_text(folder / "more.csv", "filepath,title\nx.png,a cat, asleep\nx.png,a dog,,\n");
  const auto more = open_dataset(folder / "more.csv");
  REQUIRE(more->size() == 1);
  CHECK(more->caption(0) == "a dog");
  REQUIRE(more->skipped().size() == 1);
  CHECK_THAT(more->skipped()[0].reason, Contains("the row has 3 columns, the header 2; put quotes around"));
  write_text(folder / "open.csv", "filepath,title\nx.png,fine\nx.png,\"unclosed\nx.png,lost\n");
  const auto open = open_dataset(folder / "open.csv");
  CHECK(open->size() == 2);
  REQUIRE(open->skipped().size() == 1);
  CHECK_THAT(open->skipped()[0].reason, Contains("a quote is not closed in its row; it opens in line 3: close it"));
  write_text(folder / "b.csv", "pic,words\nx.png,y\n");
  CHECK_THROWS_WITH(open_dataset(folder / "b.csv"), Contains("no column 'filepath'") && Contains("has the columns pic, words"));
}

TEST_CASE("folders: captions beside the pictures, or classes", "[data]") {
  const TemporaryFolder folder;
  const auto pairs = toy_pairs(3);
  write_toy_folder(folder / "flat", pairs);
  write_text(folder / "flat/notes.md", "not a picture");
  check_holds(*open_dataset(folder / "flat"), pairs);
  write_text(folder / "flat/lonely.png", pairs[0].png);
  const auto flat = open_dataset(folder / "flat");
  REQUIRE(flat->skipped().size() == 1);
  CHECK(flat->skipped()[0].key == "lonely.png");
  CHECK(flat->skipped()[0].reason == "no caption; lonely.txt is not there");

  for (const char* name : {"classes/red_panda", "classes/cat"}) std::filesystem::create_directories(folder / name);
  write_text(folder / "classes/red_panda/1.PNG", pairs[0].png);
  write_text(folder / "classes/red_panda/2.png", pairs[1].png);
  write_text(folder / "classes/cat/1.png", pairs[2].png);
  write_text(folder / "classes/stray.png", pairs[2].png);
  DatasetOptions options;
  options.class_caption = "this is {}";
  const auto classes = open_dataset(folder / "classes", options);
  REQUIRE(classes->size() == 3);
  CHECK(classes->caption(0) == "this is cat");
  CHECK(classes->caption(1) == "this is red panda");
  CHECK(classes->caption_id(1) == classes->caption_id(2));
  CHECK(classes->field(1, "class") == "red_panda");
  CHECK(classes->key(1) == "red_panda/1.PNG");
  CHECK(classes->skipped().size() == 1);

  // A slash at the end is the same folder; links to folders are followed, but not around; broken ones are told.
  CHECK(open_dataset((folder / "flat") + "/")->size() == 3);
  std::filesystem::create_directories(folder / "bare");
  write_text(folder / "bare/1.png", pairs[0].png);
  CHECK_THROWS_WITH(open_dataset((folder / "bare") + "/"), Contains("no pictures with captions"));
  std::filesystem::create_directory_symlink(folder / "classes/cat", folder / "classes/tiger");
  std::filesystem::create_directory_symlink(folder / "classes", folder / "classes/cat/around");
  std::filesystem::create_symlink(folder / "nothing.png", folder / "classes/cat/gone.png");
  const auto linked = open_dataset(folder / "classes", options);
  CHECK(linked->size() == 4);
  std::set<std::string> skipped;
  for (const SkippedSample& s : linked->skipped()) skipped.insert(s.key);
  CHECK(skipped == std::set<std::string>{"cat/around", "cat/gone.png", "stray.png", "tiger/around", "tiger/gone.png"});

  std::filesystem::create_directory(folder / "empty");
  CHECK_THROWS_WITH(open_dataset(folder / "empty"), Contains("no pictures with captions"));
  write_text(folder / "empty/00000.tar", "");
  CHECK_THROWS_WITH(open_dataset(folder / "empty"), Contains("it has shards: give them by name, as '" + (folder / "empty/*.tar") + "'"));
  CHECK_THROWS_WITH(open_dataset(folder / "nowhere"), Contains("data does not exist"));
  CHECK_THROWS_WITH(open_dataset(""), Contains("data without a name; ''"));
  CHECK_THROWS_WITH(open_dataset((folder / "a.tar") + "::"), Contains("data without a name") && Contains("a.tar::"));
  CHECK_THROWS_WITH(open_dataset((folder / "flat") + "::" + (folder / "classes")), Contains("only webdataset shards can be joined by ::"));
  write_text(folder / "s.tar", "");
  write_text(folder / "t.csv", "filepath,title\n");
  CHECK_THROWS_WITH(open_dataset((folder / "s.tar") + "::" + (folder / "t.csv")),
                    Contains("only webdataset shards can be joined by ::, and this is none: " + (folder / "t.csv")));
  options.type = "parquet";
  CHECK_THROWS_WITH(open_dataset(folder / "flat", options), Contains("unknown dataset type 'parquet'"));
}

TEST_CASE("the other names of JPEG files", "[data]") {
  const TemporaryFolder folder;
  const auto pairs = toy_pairs(2);
  std::filesystem::create_directory(folder / "flat");
  write_text(folder / "flat/00.jfif", pairs[0].png);
  write_text(folder / "flat/01.JPE", pairs[1].png);
  for (const ToyPair& pair : pairs) write_text(folder / ("flat/" + pair.name + ".txt"), pair.caption);
  check_holds(*open_dataset(folder / "flat"), pairs);
  write_tar(
      folder / "a.tar",
      {{"0.jfif", pairs[0].png}, {"0.txt", pairs[0].caption}, {"1.jpe", "not this"}, {"1.jpg", pairs[1].png}, {"1.txt", pairs[1].caption}});
  check_holds(*open_dataset(folder / "a.tar"), pairs);
  PictureStream stream({folder / "a.tar", folder / "flat"});
  int count = 0;
  for (EncodedPicture p; stream.next(p);) ++count;
  CHECK(count == 5);
  DatasetOptions options;
  options.image_key = "png";
  CHECK_THROWS_WITH(open_dataset(folder / "a.tar", options), Contains("no picture (png)"));
}

TEST_CASE("captions with a byte order mark, and in other encodings, by every way", "[data]") {
  const TemporaryFolder folder;
  const auto pairs = toy_pairs(4);
  const std::string mark = "\xEF\xBB\xBF", marked = "caf\xC3\xA9", latin = "caf\xE9",
                    utf16 = std::string(
                        "\xFF\xFE"
                        "c\0a\0f\0",
                        8);
  const std::vector<std::string> texts{mark + marked, latin, utf16, utf16.substr(2)};
  Members members;
  std::filesystem::create_directory(folder / "flat");
  std::string table = mark + "filepath,title\n";
  for (std::size_t i = 0; i < 4; ++i) {
    write_text(folder / ("flat/" + pairs[i].name + ".png"), pairs[i].png);
    write_text(folder / ("flat/" + pairs[i].name + ".txt"), texts[i]);
    members.emplace_back(pairs[i].name + ".png", pairs[i].png);
    members.emplace_back(pairs[i].name + ".txt", texts[i]);
    members.emplace_back(pairs[i].name + ".json", R"({"caption": ")" + texts[i] + "\"}");
    if (i < 2) table += "flat/" + pairs[i].name + ".png," + (i == 0 ? marked : latin) + "\n";
  }
  write_tar(folder / "a.tar", members);
  write_text(folder / "a.csv", table);
  DatasetOptions json;
  json.json_text_key = "caption";
  for (const auto& [name, options] : {std::pair<std::string, DatasetOptions>{"flat", {}}, {"a.tar", {}}, {"a.csv", {}}, {"a.tar", json}}) {
    INFO(name << options.json_text_key);
    const auto data = open_dataset(folder / name, options);
    REQUIRE(data->size() == 1);
    CHECK(data->caption(0) == marked);
    const auto& skipped = data->skipped();
    REQUIRE(skipped.size() == (name == "a.csv" ? 1 : 3));
    CHECK_THAT(skipped[0].reason, Contains("is not UTF-8; byte ") && Contains(" is 0xE9; ") && Contains("iconv -f latin1 -t utf-8"));
    if (skipped.size() == 1 || !options.json_text_key.empty()) continue;
    CHECK_THAT(skipped[1].reason, Contains("is UTF-16, not UTF-8; iconv -f utf-16 -t utf-8"));
    CHECK_THAT(skipped[2].reason, Contains("is UTF-16, not UTF-8; iconv -f utf-16le -t utf-8"));
  }
}

TEST_CASE("shards that are nearly ones: what is read, and what makes them so", "[data]") {
  const TemporaryFolder folder;
  const auto pairs = toy_pairs(2);
  Members apart;
  for (const ToyPair& pair : pairs) apart.emplace_back(pair.name + ".png", pair.png);
  for (const ToyPair& pair : pairs) apart.emplace_back(pair.name + ".txt", pair.caption);
  write_tar(folder / "a.tar", apart);
  CHECK_THROWS_WITH(open_dataset(folder / "a.tar"),
                    Contains("no samples; ") && Contains("(2 cannot be used, first: a.tar:00: its picture and its "
                                                         "caption do not lie next to each other; pack the tar anew with tar --sort=name)"));
  write_tar(folder / "b.tar", members_of(pairs, 0, 2));
  pack(folder / "b.tar", folder / "b.tar.xz", archive_write_add_filter_xz);
  pack(folder / "b.tar", folder / "b.tar.bz2", archive_write_add_filter_bzip2);
  write_archive(folder / "c.tar", apart, archive_write_set_format_zip);  // (a zip by another name)
  const std::string read = ", and plain tars, .tar.gz and .tar.zst are read; ";
  CHECK_THROWS_WITH(open_dataset((folder / "b.tar") + "::" + (folder / "b.tar.xz")),
                    Contains("packed by xz" + read + (folder / "b.tar.xz") + "; xz -dc FILE | zstd > NEW.tar.zst"));
  CHECK_THROWS_WITH(open_dataset(folder / "b.tar.bz2"), Contains("packed by bzip2" + read) && Contains("bzip2 -dc FILE"));
  CHECK_THROWS_WITH(open_dataset(folder / "c.tar"), Contains("packed by zip" + read) && Contains("tar --sort=name"));
  std::filesystem::rename(folder / "c.tar", folder / "c.zip");
  CHECK_THROWS_WITH(open_dataset(folder / "c.zip"), Contains("archives of this kind are not read; ") && Contains("tar --sort=name"));
  PictureStream pictures({folder / "b.tar.xz", folder / "c.zip"});  // which reads all packings of a tar
  EncodedPicture picture;
  CHECK(pictures.next(picture));
  CHECK(pictures.next(picture));
  CHECK_THROWS_WITH(pictures.next(picture), Contains("archives of this kind are not read; ") && Contains("c.zip"));
}

TEST_CASE("the built-in emoji shards", "[data]") {
  const std::string path = std::string(TWINLENS_SOURCE_DIR) + "/examples/data/emoji/twitter-val-000.tar.gz";
  const auto data = open_dataset(path);
  CHECK(data->size() > 100);
  CHECK(data->skipped().empty());
  CHECK_FALSE(data->field(0, "group").empty());
  CHECK(data->image_bytes(data->size() - 1).rfind("\x89PNG", 0) == 0);
}

}  // namespace
}  // namespace twinlens::test
