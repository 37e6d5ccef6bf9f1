// Command lines: what is wrong ends with exit status 2 and a message that names the flag and what it takes; what the program says of
// itself.

#include <algorithm>
#include <catch2/catch.hpp>
#include <filesystem>

#include "tests/program/program.h"
#include "tests/support/temporary_folder.h"

#include "twinlens/clip/config.h"

namespace twinlens::test {
namespace {

using Catch::Contains;
using Json = nlohmann::json;
using Words = std::vector<std::string>;

struct Refused {
  const char* flag;
  Words values;
  const char* rule;
};

void check_refused(const Words& command, const Refused& refused) {
  Words words = command;
  words.emplace_back(refused.flag);
  words.insert(words.end(), refused.values.begin(), refused.values.end());
  const Outcome o = run(words);
  INFO(refused.flag << " " << refused.values.front() << ": " << o.err);
  CHECK(o.status == 2);
  CHECK_THAT(o.err, Contains(std::string("error: ") + refused.flag + ": must be " + refused.rule + ", not "));
}

TEST_CASE("numbers of train that make no sense are refused", "[program]") {
  const std::vector<Refused> all{{"--lr", {"-1"}, "at least 0"},
                                 {"--lr", {"nan"}, "at least 0"},
                                 {"--lr", {"inf"}, "at least 0"},
                                 {"--wd", {"-0.1"}, "at least 0"},
                                 {"--beta1", {"-0.5"}, "at least 0 and below 1"},
                                 {"--beta2", {"1"}, "at least 0 and below 1"},
                                 {"--eps", {"0"}, "above 0"},
                                 {"--ema", {"1"}, "at least 0 and below 1"},
                                 {"--max-skipped", {"nan"}, "from 0 to 1"},
                                 {"--label-smoothing", {"nan"}, "from 0 to 1"},
                                 {"--force-patch-dropout", {"nan"}, "at least 0 and below 1"},
                                 {"--grad-clip-norm", {"-1"}, "at least 0"},
                                 {"--spike-factor", {"-1"}, "at least 0"},
                                 {"--memory-limit", {"-5"}, "at least 0"},
                                 {"--memory-limit", {"8X"}, "bytes, also with a unit from K to E"},
                                 {"--memory-limit", {"8KM"}, "bytes, also with a unit from K to E"},
                                 {"--memory-limit", {"G"}, "bytes, also with a unit from K to E"},
                                 {"--memory-limit", {"1e9E"}, "bytes, also with a unit from K to E"},
                                 {"--max-image-pixels", {"-1"}, "at least 0"},
                                 {"--max-chunk", {"-1"}, "at least 0"},
                                 {"--threads", {"-1"}, "from 0 to 1024"},
                                 {"--workers", {"100000"}, "from 1 to 1024"},
                                 {"--warmup", {"-2"}, "at least -1"},
                                 {"--save-every-steps", {"-1"}, "at least 0"},
                                 {"--save-frequency", {"-1"}, "at least 0"},
                                 {"--epochs-cooldown", {"-1"}, "at least 0"},
                                 {"--aug-scale", {"0", "1"}, "above 0 and at most 1"},
                                 {"--gray-scale-prob", {"1.5"}, "from 0 to 1"},
                                 {"--color-jitter", {"1", "-1", "1", "0"}, "at least 0"},
                                 {"--color-jitter", {"1", "1", "1", "1"}, "from 0 to 0.5"},
                                 {"--affine", {"5", "0.1", "0", "1"}, "above 0"},
                                 {"--device", {"gpu"}, "cpu, cuda or cuda:INDEX"},
                                 {"--device", {"cuda:x"}, "cpu, cuda or cuda:INDEX"},
                                 {"--batch-size", {"0"}, "at least 1"}};
  for (const Refused& refused : all) check_refused({"train", "--train-data", "x"}, refused);
}

TEST_CASE("numbers of the other subcommands that make no sense are refused", "[program]") {
  check_refused({"eval", "--model", "x", "--data", "x"}, {"--probe-c", {"nan"}, "above 0"});
  check_refused({"rank", "--model", "x", "--text", "x", "x.png"}, {"--top", {"0"}, "at least 1"});
  check_refused({"embed", "--model", "x", "--output", "x"}, {"--max-image-pixels", {"-1"}, "at least 0"});
  check_refused({"tokenize"}, {"--context-length", {"1"}, "from 2 to 1048576"});
}

TEST_CASE("whole numbers are taken as they are written or refused: none is cut, wrapped or read as octal", "[program]") {
  const std::string range = "a whole number from -9223372036854775808 to 9223372036854775807";
  for (const char* flag : {"--batch-size", "--epochs", "--accum-freq", "--max-chunk", "--warmup", "--shuffle-buffer", "--keep-last",
                           "--save-every-steps", "--log-every-n-steps", "--max-image-pixels", "--memory-limit"}) {
    check_refused({"train", "--train-data", "x"}, {flag, {"99999999999999999999"}, range.c_str()});
  }
  check_refused({"train", "--train-data", "x"}, {"--epochs", {"1e9"}, range.c_str()});
  const std::string without_zero = range + " without a 0 before it";
  check_refused({"train", "--train-data", "x"}, {"--batch-size", {"010"}, without_zero.c_str()});
  for (const char* seed : {"-1", "18446744073709551616"})
    check_refused({"train", "--train-data", "x"}, {"--seed", {seed}, "a whole number from 0 to 18446744073709551615"});
  const char* const small = "a whole number from -2147483648 to 2147483647";
  check_refused({"train", "--train-data", "x"}, {"--force-image-size", {"3000000000"}, small});
  check_refused({"rank", "--model", "x", "--text", "x", "x.png"}, {"--top", {"3000000000"}, small});
  check_refused({"eval", "--model", "x", "--data", "x"}, {"--batch-size", {"3000000000"}, small});
}

TEST_CASE("a limit of memory may have a fraction and a unit", "[program]") {
  const TemporaryFolder logs;
  const auto refused_limit = [&](const char* size) {
    const TrainedModel& of = trained_model();
    const Outcome o = run({"train", "--train-data", of.data, "--model", of.model, "--logs", logs.path(), "--memory-limit", size});
    CHECK(o.status == 1);
    return o.err;
  };
  CHECK_THAT(refused_limit("0.5kb"), Contains("--memory-limit 512 bytes is too small"));
  CHECK_THAT(refused_limit("512"), Contains("--memory-limit 512 bytes is too small"));
  CHECK_THAT(refused_limit("0.0009765625 MiB"), Contains("--memory-limit 1024 bytes is too small"));
}

TEST_CASE("a flag whose value is missing does not take the flag behind it for one", "[program]") {
  const auto refused = [](const Words& words, const std::string& rule) {
    const Outcome o = run(words);
    INFO(o.err);
    CHECK(o.status == 2);
    CHECK(o.out.empty());
    CHECK_THAT(o.err, Contains("error: " + rule) && Contains("see `twinlens " + words[0] + " --help`"));
  };
  refused({"rank", "--model", "x", "--text", "--top", "3", "a.png", "b.png"},
          "--text needs a value, and --top is a flag (--text=--top would take it for the value)");
  refused({"train", "--train-data", "x", "--name", "--resume=latest"}, "--name needs a value, and --resume=latest is a flag");
  refused({"train", "--train-data", "x", "--name=", "--flip"}, "--name needs a value, and there is none behind its =");
  refused({"embed", "--model", "x", "--texts", "x", "--output", ""}, "--output needs a value, and the one given is empty");
  refused({"train", "--train-data", "", "--name", ""}, "--train-data needs a value, and the one given is empty");
  refused({"train", "--train-data", "x", "-batch-size", "4"}, "unknown flag -batch-size; did you mean --batch-size?");
  refused({"rank", "--model", "x", "--text", "x", "-a.png"}, "unknown flag -a.png; did you mean ");
  const Outcome o = run({"rank", "--model", trained_model().model, "--text=--top", "--json", picture(0)});
  INFO(o.err);
  REQUIRE(o.status == 0);
  CHECK(nlohmann::json::parse(o.out)["results"][0]["text"] == "--top");
}

TEST_CASE("of a flag that is given twice the last counts", "[program]") {
  const Json found = json_of({"rank", "--model", "nowhere", "--text", "a disc", "--top", "1", "--json", "--model", trained_model().model,
                              "--top", "2", picture(0), picture(1), picture(2)});
  CHECK(found["results"].size() == 2);
  check_refused({"train", "--train-data", "x", "--lr", "1e-3"}, {"--lr", {"-1"}, "at least 0"});
}

TEST_CASE("a path in brackets is one path", "[program]") {
  const TemporaryFolder folder;
  const std::string name = folder / "[a,b]";
  std::filesystem::create_directories(name);
  std::filesystem::copy_file(picture(0), name + "/0.png");
  const std::filesystem::path before = std::filesystem::current_path();
  std::filesystem::current_path(folder.path());
  const auto index = json_of({"index", "--model", trained_model().model, "--index", folder / "index", "--json", "[a,b]"});
  const auto embedded = json_of({"embed", "--model", trained_model().model, "--output", folder / "e", "--images", "[a,b]", "--json"});
  const auto found = json_of({"search", "--model", trained_model().model, "--index", folder / "index", "--json", "[red]"});
  std::filesystem::current_path(before);
  CHECK(index["count"] == 1);
  CHECK(embedded["count"] == 1);
  CHECK(found["results"][0]["image"] == "./[a,b]/0.png");
  CHECK(found["results"][0]["text"] == "[red]");
}

TEST_CASE("the flag --help-all is the program's alone", "[program]") {
  CHECK_THAT(run({"--help"}).out, Contains("--help-all"));
  CHECK_THAT(run({"--help-all"}).out, Contains("--train-data") && Contains("--knn-k"));
  CHECK_THAT(run({"train", "--help"}).out, !Contains("--help-all"));
}

TEST_CASE("info says why there is no card, and not that one was asked for", "[program]") {
  const std::string cuda = json_of({"info", "RN50", "--json"})["cuda"];
  CAPTURE(cuda);
  CHECK((cuda == "available" || cuda.find("; ") != std::string::npos));
  CHECK_THAT(cuda, !Contains("asked for"));
  CHECK_THAT(run({"info", "RN50"}).out, Contains("cuda             " + cuda + "\n"));
}

TEST_CASE("info takes its model with --model, too", "[program]") {
  CHECK(json_of({"info", "--model", "RN50", "--json"}) == json_of({"info", "RN50", "--json"}));
}

TEST_CASE("the version, and info without a model: what is built in", "[program]") {
  const Outcome version = run(Words{"--version"});
  CHECK(version.status == 0);
  CHECK(version.out.starts_with("twinlens "));
  const nlohmann::json models = json_of({"info", "--json"})["models"];
  const auto named = [&](const char* name) {
    const auto found = std::find_if(models.begin(), models.end(), [&](const auto& model) { return model["model"] == name; });
    REQUIRE(found != models.end());
    return *found;
  };
  CHECK(models.size() == builtin_model_names().size());
  CHECK(named("ViT-B-32")["parameters"] == 151'277'313);
  CHECK(named("RN50")["parameters"] == 102'007'137);
  CHECK(named("ViT-B-16-SigLIP")["context_length"] == 64);
  CHECK_THAT(run(Words{"info"}).out, Contains("ViT-B-32 ") && Contains("151 M"));
}

TEST_CASE("a learning rate for random weights is warned about where there are weights; the log says memory and time left", "[train]") {
  const TemporaryFolder logs;
  const auto log_of = [&](const std::string& rate, const Words& more) {
    Words words{"train",
                "--train-data",
                trained_model().data,
                "--pretrained",
                trained_model().model,
                "--epochs",
                "2",
                "--logs",
                logs.path(),
                "--lr",
                rate,
                "--log-every-n-steps",
                "1",
                "--batch-size",
                "8"};
    words.insert(words.end(), more.begin(), more.end());
    const Outcome o = run(words);
    INFO(o.err);
    CHECK(o.status == 0);
    return o.err;
  };
  const std::string warning = "is one for random weights and makes those of --pretrained forget";
  const std::string high = log_of("5e-4", {"--name", "high"});
  CHECK_THAT(high, Contains("warning: --lr 0.0005 " + warning) && Contains("memory: the peak was ") && Contains(" left\n"));
  CHECK_THAT(log_of("1e-5", {"--name", "low"}), !Contains(warning));
  CHECK_THAT(log_of("1e-3", {"--name", "locked", "--lock-image"}), !Contains(warning));
}

}  // namespace
}  // namespace twinlens::test
