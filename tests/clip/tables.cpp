// CSV and TSV files that are nearly right: what is used of them, what is said of the rest.

#include <catch2/catch.hpp>
#include <filesystem>
#include <sys/stat.h>
#include <unistd.h>

#include "tests/support/temporary_folder.h"
#include "tests/support/toy_data.h"

#include "twinlens/clip/dataset.h"
#include "twinlens/clip/text_encoding.h"
#include "twinlens/kernels/error.h"

namespace twinlens::test {
namespace {

using Catch::Contains;
using Words = std::vector<std::string>;

// A folder with a picture, and tables beside it.
struct Tables {
  TemporaryFolder folder;
  Tables() { write_text(folder / "a.png", toy_pairs(1)[0].png); }
  std::shared_ptr<const Dataset> open(const std::string& name, const std::string& text, const DatasetOptions& options = {}) const {
    write_text(folder / name, text);
    return open_dataset(folder / name, options);
  }
};

Words captions_of(const Dataset& data) {
  Words out;
  for (std::int64_t i = 0; i < data.size(); ++i) out.push_back(data.caption(i));
  return out;
}
Words skipped_of(const Dataset& data) {
  Words out;
  for (const SkippedSample& s : data.skipped()) out.push_back(s.key + ": " + s.reason.substr(0, s.reason.rfind(": ")));
  return out;
}

TEST_CASE("a quote that begins a cell as text costs its own line alone", "[data]") {
  const Tables tables;
  const auto data = tables.open("a.tsv",
                                "filepath\ttitle\n"
                                "a.png\tplain\n"
                                "a.png\t\"Hello World is a film\n"  // up to a quote in the middle of a cell
                                "a.png\tnot lost\n"
                                "a.png\tsays \"hi\" to all\n"
                                "a.png\t\"two\nlines\"\r\n"  // as pandas and csv.writer write them: lines, tabs and quotes within
                                "a.png\t\"tab\there \"\"and\"\" there\nb.png is no row\"\n"
                                "a.png\ta 5\" pipe\n"
                                "a.png\t\"to the end of a cell\n"
                                "a.png\tsize 6\"\n"
                                "a.png\t\"to the end of the file\n"
                                "a.png\tlast");
  CHECK(captions_of(*data) == Words{"plain", "not lost", "says \"hi\" to all", "two\nlines", "tab\there \"and\" there\nb.png is no row",
                                    "a 5\" pipe", "size 6\"", "last"});
  const std::string open = "a quote is not closed in its row; it opens in line ";
  CHECK(skipped_of(*data) == Words{"a.tsv:3: " + open + "3", "a.tsv:11: " + open + "11", "a.tsv:13: " + open + "13"});
  CHECK_THAT(data->skipped()[0].reason, Contains("close it, or put the whole cell in quotes and write \"\" for each quote in it"));

  const auto turned = tables.open("b.tsv", "title\timage\n\"swallows\ta.png\nit all\"\ta.png\n\"fine\nhere\"\ta.png\n");
  CHECK(captions_of(*turned) == Words{"it all\"", "fine\nhere"});
  CHECK(skipped_of(*turned) == Words{"b.tsv:2: " + open + "2"});
}

TEST_CASE("a row that is too long is left out, with its line", "[data]") {
  const Tables tables;
  const std::string much(1'500'000, 'x');
  const auto data =
      tables.open("a.csv", "filepath,title\na.png,\"one\ntwo\"\na.png," + much + "\na.png,three\na.png,\"" + much + "\"\na.png,four\n");
  CHECK(captions_of(*data) == Words{"one\ntwo", "three", "four"});
  CHECK(skipped_of(*data) == Words{"a.csv:4: the row is longer than 1048576 bytes; it begins in line 4",
                                   "a.csv:6: the row is longer than 1048576 bytes behind a quote; it opens in line 6"});
  CHECK_THROWS_WITH(tables.open("b.csv", "filepath,title\na.png," + much),
                    Contains("no samples: its 1 rows cannot be used, first: b.csv:2: the row is longer"));
}

TEST_CASE("files that are no tables as they are: what they are, and what makes them so", "[data]") {
  const Tables tables;
  const std::string plain = "filepath,title\na.png,a cat\n";
  CHECK_THROWS_WITH(tables.open("a.csv", ""), Contains("the table is empty; ") && Contains("a.csv") && Contains("filepath,title"));
  CHECK_THROWS_WITH(tables.open("a.csv", "\xEF\xBB\xBF\r\n \n"), Contains("the table is empty; "));
  std::string wide = "\xFF\xFE", cr = plain;
  for (const char c : plain) wide += std::string(1, c) + '\0';
  for (char& c : cr) c = c == '\n' ? '\r' : c;
  CHECK_THROWS_WITH(tables.open("a.csv", wide), Contains("a.csv is UTF-16, not UTF-8; iconv -f utf-16 -t utf-8"));
  CHECK_THROWS_WITH(tables.open("a.csv", wide.substr(2)), Contains("a.csv is UTF-16, not UTF-8; iconv -f utf-16le -t utf-8"));
  CHECK_THROWS_WITH(tables.open("a.csv", cr), Contains("the lines of the table end in CR alone; ") && Contains("tr '\\r' '\\n'"));
  for (const std::string& archive : {std::string("PK\x03\x04\x14\0\x06", 7), std::string("a.txt\0\0\0\0\0\0000644\0", 15)}) {
    CHECK_THROWS_WITH(tables.open("a.csv", archive + plain), Contains("the table is no text: byte ") && Contains("another --dataset-type"));
  }
  CHECK_THAT(encoding_problem(std::string("a.txt") + std::string(95, '\0') + "0000644"), Catch::StartsWith("no text; "));
  // Blank lines before the header are nothing, as for pandas.
  CHECK(captions_of(*tables.open("a.csv", "\r\n\n" + plain)) == Words{"a cat"});
}

TEST_CASE("columns that are nearly those that are looked for are named", "[data]") {
  const Tables tables;
  DatasetOptions options;
  options.csv_img_key = "filePath";
  CHECK_THROWS_WITH(
      tables.open("a.csv", "id,FilePath, title\n1,a.png,a cat\n", options),
      Contains("no column 'filePath'") && Contains("has the columns id, FilePath, ' title'; did you mean --csv-img-key 'FilePath'?"));
  options.csv_img_key = "FilePath";
  options.csv_caption_key = "titel";
  CHECK_THROWS_WITH(tables.open("a.csv", "id,FilePath, title\n1,a.png,a cat\n", options),
                    Contains("did you mean --csv-caption-key ' title'?"));
  options.csv_caption_key = " title";
  CHECK(captions_of(*tables.open("a.csv", "id,FilePath, title\n1,a.png,a cat\n", options)) == Words{"a cat"});
}

TEST_CASE("factors of sources are refused where there are no shards", "[data]") {
  const Tables tables;
  DatasetOptions options;
  options.upsampling = {3.0};
  CHECK_THROWS_AS(tables.open("a.csv", "filepath,title\n1.png,a cat\n", options), UsageError);
}

TEST_CASE("columns are found by their usual names, in any case and with blanks around; as they are written goes first", "[data]") {
  const Tables tables;
  for (const char* header : {"id,FilePath, title", "id,file_name,text", "id,Image_Path,Caption", "id,FILENAME,TEXT"})
    CHECK(captions_of(*tables.open("a.csv", std::string(header) + "\n1,a.png,a cat\n")) == Words{"a cat"});
  CHECK(captions_of(*tables.open("a.csv", "Title,filepath,title\na dog,a.png,a cat\n")) == Words{"a cat"});
}

TEST_CASE("a pipe in place of a picture or a caption is a bad sample", "[data]") {
  const Tables tables;
  REQUIRE(::mkfifo((tables.folder / "pipe.png").c_str(), 0600) == 0);
  std::filesystem::create_directory(tables.folder / "flat");
  for (const char* name : {"0", "1"})
    std::filesystem::copy(tables.folder / "a.png", tables.folder / ("flat/" + std::string(name) + ".png"));
  write_text(tables.folder / "flat/0.txt", "a caption");
  REQUIRE(::mkfifo((tables.folder / "flat/1.txt").c_str(), 0600) == 0);
  ::alarm(20);  // (what hangs would hang for ever)
  const auto data = tables.open("a.csv", "filepath,title\na.png,a cat\npipe.png,a pipe\n");
  CHECK_THROWS_WITH(data->image_bytes(1), Contains("not a file but a device, a pipe") && Contains("pipe.png"));
  const auto flat = open_dataset(tables.folder / "flat");
  ::alarm(0);
  CHECK(captions_of(*flat) == Words{"a caption"});
  REQUIRE(flat->skipped().size() == 1);
  CHECK_THAT(flat->skipped()[0].reason, Contains("the caption cannot be read: not a file but") && Contains("1.txt"));
}

}  // namespace
}  // namespace twinlens::test
