// examples/quickstart.sh with the build and the program replaced: what it makes of --data.

#include <catch2/catch.hpp>
#include <cstdlib>
#include <filesystem>

#include "tests/support/temporary_folder.h"
#include "tests/support/toy_data.h"

#include "twinlens/core/file.h"

namespace twinlens::test {
namespace {

namespace fs = std::filesystem;
using Catch::Contains;

// A tree of its own whose `twinlens` notes its arguments.
class Tree {
 public:
  Tree() {
    for (const char* folder : {"examples/data/emoji", "tests", "path", "build/bin", "caller"}) fs::create_directories(folder_ / folder);
    for (const char* file : {"examples/quickstart.sh", "examples/data/emoji_recipe.txt"}) {
      fs::copy(std::string(TWINLENS_SOURCE_DIR) + "/" + file, folder_ / file);
    }
    script("tests/packages.sh", "");
    script("path/cmake", "");
    script("path/gunzip", "");
    script("build/bin/twinlens", "echo \"$@\" >>'" + (folder_ / "words") + "'\n");
  }
  std::string operator/(const std::string& name) const { return folder_ / name; }
  // The command lines of the program, when the script is run from caller/.
  std::string words(const std::string& data) const {
    fs::remove(folder_ / "words");
    const std::string command = "cd " + (folder_ / "caller") + " && PATH=" + (folder_ / "path") +
                                ":$PATH TWINLENS_BUILD_DIR=" + (folder_ / "build") + " ../examples/quickstart.sh --epochs 1 --data '" +
                                data + "' >" + (folder_ / "log") + " 2>&1";
    const int status = std::system(command.c_str());
    INFO(read_file(folder_ / "log"));
    REQUIRE(status == 0);
    return read_file(folder_ / "words");
  }

 private:
  void script(const std::string& name, const std::string& lines) const {
    write_text(folder_ / name, "#!/bin/sh\n" + lines);
    fs::permissions(folder_ / name, fs::perms::owner_all);
  }
  TemporaryFolder folder_;
};

TEST_CASE("quickstart --data: paths are the caller's, and the batch is one that the rows fill", "[program]") {
  const Tree tree;
  std::string table = "filepath,title\n";
  for (int i = 0; i < 40; ++i) table += "a.png,a\n";
  write_text(tree / "caller/pairs.csv", table);
  CHECK_THAT(tree.words("pairs.csv"), Contains("--train-data " + (tree / "caller/pairs.csv ")) && Contains("--batch-size 5 ") &&
                                          Contains("eval --model logs/quickstart/model --data " + (tree / "caller/pairs.csv")));
  fs::create_directories(tree / "caller/a b");
  for (int i = 0; i < 16; ++i) write_text(tree / ("caller/a b/" + std::to_string(i) + ".png"), "");
  CHECK_THAT(tree.words("a b"), Contains("--train-data " + (tree / "caller/a b ")) && Contains("--batch-size 2 "));
  CHECK_THAT(tree.words("x/{0..3}.tar::/y.tar"),
             Contains("--train-data " + (tree / "caller/x/{0..3}.tar::/y.tar ")) && Contains("--batch-size 512 "));
  CHECK(std::system(("cd " + (tree / "caller") + " && tar -cf pictures.tar 'a b'").c_str()) == 0);
  CHECK_THAT(tree.words("pictures.tar"), Contains("--batch-size 2 "));
  // All that a pattern and a::b name.
  fs::create_directories(tree / "caller/my shards");
  for (const char* copy : {"0", "1", "2"})
    fs::copy(tree / "caller/pictures.tar", tree / ("caller/my shards/" + std::string(copy) + ".tar"));
  CHECK_THAT(tree.words("my shards/{0..2}.tar"), Contains("/my shards/{0..2}.tar ") && Contains("--batch-size 6 "));
  CHECK_THAT(tree.words("my shards/*.tar::pictures.tar"), Contains("--batch-size 8 "));
}

}  // namespace
}  // namespace twinlens::test
