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
using Catch::StartsWith;

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
    script("build/bin/twinlens", "echo \"$PWD $@\" >>'" + (folder_ / "words") + "'\n");
  }
  std::string operator/(const std::string& name) const { return folder_ / name; }
  // The exit status of the script, when it is run from caller/; `around` may hold its command, {}, in another.
  int run(const std::string& arguments, const std::string& around = "{}") const {
    fs::remove(folder_ / "words");
    std::string command = around;
    command.replace(command.find("{}"), 2, "../examples/quickstart.sh " + arguments);
    command = "cd " + (folder_ / "caller") + " && PATH=" + (folder_ / "path") + ":$PATH TWINLENS_BUILD_DIR=build " + command + " >" +
              (folder_ / "log") + " 2>&1";
    return std::system(command.c_str());
  }
  // The command lines of the program.
  std::string words(const std::string& data) const {
    const int status = run("--epochs 1 --data '" + data + "'");
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
  CHECK_THAT(tree.words("pairs.csv"),
             Contains("--train-data " + (tree / "caller/pairs.csv ")) && Contains("--batch-size 5 ") &&
                 Contains("eval --model " + (tree / "logs/quickstart/model") + " --data " + (tree / "caller/pairs.csv")) &&
                 StartsWith((tree / "caller") + " train "));
  write_text(tree / "caller/two.csv", "filepath,title\na.png,a\nb.png,b");  // (no end of line)
  CHECK_THAT(tree.words("two.csv"), Contains("--batch-size 2 "));
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

TEST_CASE("a quickstart keeps the run before, and leaves alone one that is at work", "[program]") {
  const Tree tree;
  write_text(tree / "caller/pairs.csv", "filepath,title\na.png,a\nb.png,b\n");
  fs::create_directories(tree / "logs/quickstart");
  write_text(tree / "logs/quickstart/mine", "");
  CHECK(tree.run("--epochs x --data pairs.csv") != 0);
  CHECK_THAT(read_file(tree / "log"), Contains("error: 'x' is no number of epochs; --epochs; give 1 or more"));
  CHECK(tree.run("--epochs 1 --data pairs.csv", "flock --no-fork ../logs/.quickstart.lock {}") == 0);
  CHECK_THAT(read_file(tree / "log"), Contains("another quickstart is at work: this run goes to logs/quickstart."));
  CHECK_THAT(read_file(tree / "words"), Contains("--name quickstart.") && Contains("/logs/quickstart."));
  CHECK(fs::exists(tree / "logs/quickstart/mine"));
  CHECK_THAT(tree.words("pairs.csv"), Contains("--name quickstart\n"));
  CHECK(fs::exists(tree / "logs/quickstart.before/mine"));
}

}  // namespace
}  // namespace twinlens::test
