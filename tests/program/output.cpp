// What goes to stdout: a write that fails is an error, text that is not UTF-8 is none. And what Ctrl-C does where nothing is saved.

#include <catch2/catch.hpp>
#include <chrono>
#include <csignal>
#include <cstdlib>
#include <fcntl.h>
#include <filesystem>
#include <sys/stat.h>
#include <thread>
#include <unistd.h>

#include "tests/program/program.h"
#include "tests/support/temporary_folder.h"
#include "tests/support/toy_data.h"

#include "twinlens/core/file.h"

namespace twinlens::test {
namespace {

namespace fs = std::filesystem;
using Catch::Contains;
using Json = nlohmann::json;

constexpr const char* kReplacement = "\xef\xbf\xbd";  // U+FFFD

TEST_CASE("stdout that cannot be written is exit status 1, for every kind of output", "[program]") {
  if (!fs::exists("/dev/full")) return;
  // Many lines come to a write before their end, one only at it.
  std::string lines;
  for (int i = 0; i < 20'000; ++i) lines += "a line\n";
  const std::vector<Start> starts{{{"tokenize"}, lines},
                                  {{"tokenize"}, "one line\n"},
                                  {{"tokenize", "--json"}, "one line\n"},
                                  {{"info", "RN50", "--json"}, {}},
                                  {{"info", "RN50"}, {}},
                                  {{"--help"}, {}}};
  for (Start start : starts) {
    INFO(start.arguments[0]);
    start.output = "/dev/full";
    const Outcome o = run(start);
    CHECK(o.status == 1);
    CHECK_THAT(o.err, Contains("error: standard output cannot be written: No space left on device; stdout; "));
    CHECK_THAT(o.err, !Contains("unexpected"));
  }
}

TEST_CASE("tokenize stops at the first write that fails, however much is still to be read", "[program]") {
  if (!fs::exists("/dev/full")) return;
  const TemporaryFolder folder;
  write_text(folder / "script", "yes 'a line' | timeout 20 " + std::string(TWINLENS_PROGRAM) +
                                    " tokenize 2>/dev/null >/dev/full; echo $? >" + (folder / "status"));
  CHECK(std::system(("sh " + (folder / "script") + " 2>/dev/null").c_str()) == 0);
  CHECK(read_file(folder / "status") == "1\n");
}

TEST_CASE("tokenize: stdin that cannot be read is an error, not the end of the lines", "[program]") {
  const TemporaryFolder folder;
  for (const std::string input : {"</", "<&-"}) {  // a folder, and nothing
    write_text(folder / "script",
               std::string(TWINLENS_PROGRAM) + " tokenize " + input + " 2>" + (folder / "said") + "; echo $? >" + (folder / "status"));
    CHECK(std::system(("sh " + (folder / "script")).c_str()) == 0);
    CHECK(read_file(folder / "status") == "1\n");
    CHECK_THAT(read_file(folder / "said"), Contains("error: standard input cannot be read: "));
  }
}

TEST_CASE("names that are not UTF-8 come out of --json as U+FFFD", "[program]") {
  const TemporaryFolder folder;
  const std::string bad = "caf\xe9", name = std::string("caf") + kReplacement;
  const std::string& model = trained_model().model;
  fs::create_directories(folder / bad);
  const std::string image = folder / (bad + "/" + bad + ".png");
  fs::copy(picture(0), image);
  const std::string classes = folder / (bad + "/classes.txt");
  write_text(classes, "red\nother\n");  // (what a list holds is UTF-8, or refused)
  const auto ends_with = [](const Json& value, const std::string& end) {
    const auto text = value.get<std::string>();
    return text.size() >= end.size() && text.compare(text.size() - end.size(), end.size(), end) == 0;
  };

  const Json classified = json_of({"classify", "--model", model, "--classes", classes, image, "--json"});
  CHECK(ends_with(classified["results"][0]["image"], "/" + name + "/" + name + ".png"));
  const Json ranked = json_of({"rank", "--model", model, "--text", bad, image, "--json"});
  CHECK(ranked["results"][0]["text"] == name);
  const std::string index = folder / (bad + "/index");
  CHECK(ends_with(json_of({"index", "--model", model, "--index", index, folder / bad, "--json"})["index"], name + "/index"));
  CHECK(ends_with(json_of({"search", "--model", model, "--index", index, bad, "--json"})["results"][0]["image"], name + ".png"));
  CHECK(ends_with(json_of({"embed", "--model", model, "--images", image, "--output", folder / (bad + "/e"), "--json"})["output"], "/e"));
  CHECK(ends_with(json_of({"preprocess", "--model", model, "--output", folder / (bad + "/p"), image, "--json"})["output"], "/p"));
  fs::copy(model, folder / (bad + "/model"), fs::copy_options::recursive);
  CHECK(ends_with(json_of({"info", folder / (bad + "/model"), "--json"})["model"], name + "/model"));
  json_of({"convert", model, "--to", "openai", "--output", folder / (bad + "/converted"), "--json"});
  const Json trained = json_of({"train", "--train-data", trained_model().data, "--model", trained_model().folder + "/vit.json", "--epochs",
                                "1", "--batch-size", "8", "--logs", folder.path(), "--name", bad + "-run", "--json"});
  CHECK(ends_with(trained["run_folder"], name + "-run"));
  json_of({"eval", "--model", model, "--data", trained_model().data, "--seen-words", classes, "--json"});
}

TEST_CASE("eval says which flags its task does not read, and answers", "[program]") {
  const auto eval = [](const std::vector<std::string>& more) {
    std::vector<std::string> words{"eval", "--model", trained_model().model, "--data", trained_model().data, "--json"};
    words.insert(words.end(), more.begin(), more.end());
    return run(words);
  };
  const Outcome plain = eval({}), noted = eval({"--knn-k", "3", "--templates", "openai"});
  CHECK(noted.status == 0);
  CHECK(noted.out == plain.out);
  CHECK(plain.err.empty());
  CHECK(noted.err == "note: --knn-k is not used by --task retrieval\nnote: --templates is not used by --task retrieval\n");
}

TEST_CASE("train says which flags do nothing without another", "[program]") {
  const TemporaryFolder folder;
  const auto err = [&](const std::vector<std::string>& more) {
    std::vector<std::string> words{"train", "--train-data", folder / "none", "--logs", folder.path()};
    words.insert(words.end(), more.begin(), more.end());
    return run(words).err;
  };
  CHECK_THAT(err({"--color-jitter", "0.4", "0.4", "0.4", "0.1"}),
             Contains("note: --color-jitter changes nothing without --color-jitter-prob"));
  CHECK_THAT(err({"--color-jitter-prob", "0.8"}), Contains("note: --color-jitter-prob changes nothing without --color-jitter\n"));
  CHECK_THAT(err({"--lock-image-unlocked-groups", "1"}),
             Contains("note: --lock-image-unlocked-groups changes nothing without --lock-image\n"));
  CHECK_THAT(err({"--epochs-cooldown", "1"}), Contains("note: --epochs-cooldown changes nothing without --lr-scheduler const-cooldown"));
  CHECK_THAT(err({"--color-jitter", "0.4", "0.4", "0.4", "0.1", "--color-jitter-prob", "0.8", "--lock-image",
                  "--lock-image-unlocked-groups", "1"}),
             !Contains("note: "));
}

TEST_CASE("the first SIGTERM ends a subcommand that has nothing to save", "[program]") {
  const TemporaryFolder folder;
  const std::string pipe = folder / "classes";
  REQUIRE(::mkfifo(pipe.c_str(), 0600) == 0);
  Running program(Start{{"classify", "--model", trained_model().model, "--classes", pipe, picture(0)}, {}, {}, 0});
  // It has begun when it reads from the pipe, and waits for a line that never comes.
  int writer = -1;
  while (writer < 0 && !program.ended()) {
    writer = ::open(pipe.c_str(), O_WRONLY | O_NONBLOCK);
    std::this_thread::sleep_for(std::chrono::milliseconds(1));
  }
  program.signal(SIGTERM);
  for (int i = 0; i < 5000 && !program.ended(); ++i) std::this_thread::sleep_for(std::chrono::milliseconds(1));
  if (!program.ended()) program.signal(SIGKILL);
  CHECK(program.wait().status == -SIGTERM);
  ::close(writer);
}

}  // namespace
}  // namespace twinlens::test
