// Data and models that are nearly right: what is used of them, what is said of the rest.

#include <algorithm>
#include <catch2/catch.hpp>
#include <cstdlib>
#include <filesystem>
#include <nlohmann/json.hpp>
#include <set>
#include <sys/wait.h>

#include "tests/program/program.h"
#include "tests/support/temporary_folder.h"
#include "tests/support/toy_data.h"
#include "tests/support/toy_tars.h"

#include "twinlens/core/file.h"

namespace twinlens::test {
namespace {

namespace fs = std::filesystem;
using Catch::Contains;
using Words = std::vector<std::string>;

Words train(const TemporaryFolder& folder, const std::string& data, const Words& more = {}) {
  Words all{"train", "--train-data", data, "--logs", folder / "logs", "--name", "run", "--batch-size", "4", "--epochs", "1"};
  all.insert(all.end(), more.begin(), more.end());
  return all;
}
std::string vit() { return trained_model().folder + "/vit.json"; }

void check_refused(const Words& arguments, const Words& message_has) {
  const Outcome o = run(arguments);
  INFO(o.err);
  CHECK(o.status != 0);
  for (const std::string& part : message_has) CHECK_THAT(o.err, Contains(part));
}

TEST_CASE("train --model with weights says that they are not taken", "[program]") {
  const TemporaryFolder folder;
  const std::string note = "note: --model gives the architecture only, training starts from random weights; give --pretrained ";
  const std::string& model = trained_model().model;
  const Outcome o = run(train(folder, trained_model().data, {"--model", model}));
  INFO(o.err);
  CHECK(o.status == 0);
  CHECK_THAT(o.err, Contains(note + model));
  CHECK_THAT(read_file(folder / "logs/run/out.log"), Contains(note));
  for (const Words& more : {Words{"--model", model, "--pretrained", model}, Words{"--pretrained", model}, Words{"--model", vit()}}) {
    fs::remove_all(folder / "logs");
    const Outcome quiet = run(train(folder, trained_model().data, more));
    CHECK(quiet.status == 0);
    CHECK_THAT(quiet.err, !Contains("note: --model"));
  }
}

TEST_CASE("a checkpoint of training is a model with the configuration that it was trained with", "[program]") {
  const std::string checkpoint = trained_model().log + "/checkpoints/step_6";
  const auto info = json_of({"info", checkpoint, "--json"});
  CHECK(info["model_cfg"] == json_of({"info", trained_model().model, "--json"})["model_cfg"]);
  CHECK(info["config_from"] == "config file");
  const auto scores = [](const std::string& model) {
    return json_of({"rank", "--model", model, "--text", "a red disc", picture(0), picture(1), "--json"});
  };
  CHECK(scores(checkpoint) == scores(trained_model().model));
  // One whose layout has other names than the model (CustomTextCLIP's "text."), and one with buffers.
  const TemporaryFolder folder;
  std::string custom = toy_vit_json();
  custom.insert(custom.find('{') + 1, "\"custom_text\": true, ");
  for (const std::string& config : {custom, toy_resnet_json()}) {
    fs::remove_all(folder / "logs");
    write_text(folder / "model.json", config);
    json_of(train(folder, trained_model().data, {"--model", folder / "model.json", "--json"}));
    CHECK(scores(folder / "logs/run/checkpoints/step_6") == scores(folder / "logs/run/model"));
  }
}

TEST_CASE("a batch of one pair is warned of", "[program]") {
  const TemporaryFolder folder;
  const auto warned = [&](const Words& more) {
    fs::remove_all(folder / "logs");
    const Outcome o = run(train(folder, trained_model().data, more));
    INFO(o.err);
    REQUIRE(o.status == 0);
    return o.err.find("warning: a batch of one pair") != std::string::npos;
  };
  CHECK(warned({"--model", vit(), "--batch-size", "1"}));
  CHECK_FALSE(warned({"--model", vit(), "--batch-size", "1", "--accum-freq", "2"}));
  CHECK_FALSE(warned({"--model", vit(), "--batch-size", "1", "--siglip"}));
}

TEST_CASE("captions that are all equal are warned of", "[program]") {
  const TemporaryFolder folder;
  auto pairs = toy_pairs(8);
  for (auto& pair : pairs) pair.caption = "a picture";
  write_toy_folder(folder / "same", pairs);
  pairs.back().caption = "another";
  write_toy_folder(folder / "other", pairs);
  const auto warned = [&](const std::string& data, const Words& more) {
    fs::remove_all(folder / "logs");
    Words all{"--model", vit()};
    all.insert(all.end(), more.begin(), more.end());
    const Outcome o = run(train(folder, data, all));
    INFO(o.err);
    REQUIRE(o.status == 0);
    return o.err.find("warning: all captions are equal") != std::string::npos;
  };
  CHECK(warned(folder / "same", {}));
  CHECK_FALSE(warned(folder / "same", {"--equal-captions", "negatives"}));
  CHECK_FALSE(warned(folder / "other", {}));
}

TEST_CASE("a run's folder as --model: the error names the model in it, and the flag", "[program]") {
  const TemporaryFolder folder;
  const std::string &log = trained_model().log, &model = trained_model().model;
  for (const Words& command : {Words{"info", log}, Words{"embed", "--model", log, "--texts", "x", "--output", folder / "y"}})
    check_refused(command, {"'" + log + "' belongs to a training run and is no model", "its model is in " + model});
  for (const std::string& inside : {log + "/checkpoints/", log + "/checkpoints/latest"})
    check_refused({"info", inside}, {"its model is in " + log + "/checkpoints/step_6"});
  for (const Words& more : {Words{"--model", vit(), "--pretrained", log}, Words{"--pretrained", log}})
    check_refused(train(folder, trained_model().data, more), {"; --pretrained; its model is in " + model});
  for (const Words& more : {Words{"--model", vit(), "--pretrained", folder / "none"}, Words{"--pretrained", folder / "none"}})
    check_refused(train(folder, trained_model().data, more), {"; --pretrained; "});
}

TEST_CASE("a text that belongs to no picture leaves a folder of class folders what it is", "[program]") {
  const TemporaryFolder folder;
  const auto pairs = toy_pairs(8);
  for (const char* name : {"cat", "dog"}) fs::create_directories(folder / (std::string("data/") + name));
  for (std::size_t i = 0; i < 8; ++i)
    write_text(folder / ((i % 2 == 0 ? "data/cat/" : "data/dog/") + pairs[i].name + ".png"), pairs[i].png);
  write_text(folder / "data/README.txt", "made by hand");
  write_text(folder / "data/cat/LICENSE.txt", "free");
  const Outcome classes = run(train(folder, folder / "data", {"--model", vit()}));
  INFO(classes.err);
  CHECK(classes.status == 0);
  CHECK_THAT(classes.err, Contains("8 pairs"));
  // Captions in upper case, as pictures.
  fs::remove_all(folder / "logs");
  fs::create_directories(folder / "upper");
  for (const ToyPair& pair : pairs) {
    write_text(folder / ("upper/" + pair.name + ".PNG"), pair.png);
    write_text(folder / ("upper/" + pair.name + ".TXT"), pair.caption);
  }
  const Outcome upper = run(train(folder, folder / "upper", {"--model", vit()}));
  INFO(upper.err);
  CHECK(upper.status == 0);
}

TEST_CASE("what is left out by a rule is listed and does not count as bad data", "[program]") {
  const TemporaryFolder folder;
  write_toy_folder(folder / "data", toy_pairs(8));
  fs::create_directories(folder / "data/.git");
  fs::create_directory_symlink(folder / "data", folder / "data/around");
  const Outcome o = run(train(folder, folder / "data", {"--model", vit(), "--max-skipped", "0"}));
  INFO(o.err);
  CHECK(o.status == 0);
  CHECK_THAT(o.err, Contains("8 pairs"));
  CHECK(read_file(folder / "logs/run/skipped.tsv") ==
        ".git\thidden (its name begins with a dot)\naround\ta link to a folder that it lies in is not followed\n");
}

TEST_CASE("a picture that is a link goes by its own name", "[program]") {
  const TemporaryFolder folder;
  write_toy_folder(folder / "data", toy_pairs(8));
  fs::create_directories(folder / "other");
  write_text(folder / "other/x.png", "no picture");
  fs::create_symlink("../other/x.png", folder / "data/linked.png");
  write_text(folder / "data/linked.txt", "a link");
  const Outcome o = run(train(folder, folder / "data", {"--model", vit(), "--max-skipped", "0.5"}));
  INFO(o.err);
  CHECK(o.status == 0);
  CHECK_THAT("\n" + read_file(folder / "logs/run/skipped.tsv"), Contains("\nlinked.png\t"));
}

TEST_CASE("a damaged shard among good ones: training and embed go on without it", "[program]") {
  const TemporaryFolder folder;
  write_tar(folder / "good.tar", members_of(toy_pairs(8), 0, 8));
  write_tar(folder / "whole.tar", members_of(toy_pairs(8), 0, 8));
  const std::string whole = read_file(folder / "whole.tar");
  write_text(folder / "cut.tar", whole.substr(0, whole.size() / 2));
  write_text(folder / "empty.tar", "");
  const std::string all = (folder / "cut.tar") + "::" + (folder / "empty.tar") + "::" + (folder / "good.tar");
  const Outcome o = run(train(folder, all, {"--model", vit(), "--max-skipped", "0.2", "--shuffle-buffer", "8"}));
  INFO(o.err);
  CHECK(o.status == 0);
  const std::string skipped = "\n" + read_file(folder / "logs/run/skipped.tsv");
  CHECK_THAT(skipped,
             Contains("\ncut.tar\tthe shard is damaged after ") && Contains("\nempty.tar\tthe shard is damaged before its first sample"));
  CHECK_THAT(o.err, Contains("skipped cut.tar: the shard is damaged after "));
  fs::remove_all(folder / "logs");
  check_refused(train(folder, all, {"--model", vit(), "--max-skipped", "0.01"}),
                {"2 of 1", "more than --max-skipped allows; first: cut.tar: "});

  const Words embed{"embed", "--model", trained_model().model, "--output", folder / "out", "--json", "--images"};
  const auto with = [&](const Words& images) {
    Words out = embed;
    out.insert(out.end(), images.begin(), images.end());
    return out;
  };
  const auto json = json_of(with({folder / "cut.tar", folder / "empty.tar", folder / "good.tar"}));
  CHECK(json["skipped"] == 2);
  CHECK(json["count"] > 8);
  CHECK(json["count"] < 16);
  check_refused(with({folder / "empty.tar"}), {"no usable picture", folder / "empty.tar"});
  check_refused(with({folder / "none.tar"}), {"No such file", folder / "none.tar"});
}

TEST_CASE("data that is skipped is not blamed on the batch size", "[program]") {
  const TemporaryFolder folder;
  const auto pairs = toy_pairs(6);
  std::string table = "filepath,title\n", some = table;
  for (const ToyPair& pair : pairs) {
    write_text(folder / (pair.name + ".png"), pair.png);
    table += pair.name + ".png,\n";
    some += pair.name + ".png," + (pair.name < "03" ? '"' + pair.caption + '"' : "") + "\n";
  }
  write_text(folder / "empty.csv", table);
  write_text(folder / "some.csv", some);
  write_text(folder / "header.csv", "filepath,title\n");
  check_refused(train(folder, folder / "empty.csv"),
                {"no samples: its 6 rows cannot be used, first: empty.csv:2: the caption is empty; " + (folder / "empty.csv")});
  check_refused(train(folder, folder / "header.csv"), {"no samples: it has no row below its header; " + (folder / "header.csv")});
  check_refused(train(folder, folder / "some.csv", {"--model", vit()}),
                {"3 samples do not fill one batch of 4; --batch-size times --accum-freq; mend the 3 more that cannot be used (first: "
                 "some.csv:5: the caption "
                 "is empty)"});
  write_tar(folder / "none.tar", {{"0.png", pairs[0].png}, {"1.txt", "no picture"}});
  check_refused(train(folder, folder / "none.tar"), {"no samples; ", "(2 cannot be used, first: none.tar:0: no caption (txt))"});
  check_refused(train(folder, folder / "some.csv", {"--csv-separator", ";;"}), {"';;' is not one character; --csv-separator"});
}

TEST_CASE("train --resume takes a run, its checkpoints or the file `latest`, and says what else it needs", "[program]") {
  const TemporaryFolder folder;
  const auto resume = [&](const std::string& from) { return train(folder, trained_model().data, {"--model", vit(), "--resume", from}); };
  REQUIRE(run(train(folder, trained_model().data, {"--model", vit()})).status == 0);
  const std::string run_folder = folder / "logs/run";
  for (const char* part : {"", "/", "/checkpoints", "/checkpoints/latest", "/checkpoints/step_6", "/checkpoints/step_6/"}) {
    const Outcome o = run(resume(run_folder + part));
    INFO(part << o.err);
    CHECK(o.status == 0);
  }
  check_refused(resume(folder / "none"),
                {"resume: there is no such checkpoint; " + (folder / "none"), "--resume latest with the run's --name"});
  check_refused(resume(trained_model().data), {"resume: the folder holds no checkpoint; "});
  check_refused(resume(vit()), {"resume: a file is no checkpoint; "});
  fs::resize_file(run_folder + "/checkpoints/step_6/model.safetensors", 100);
  const Outcome damaged = run(resume(run_folder + "/checkpoints/step_6"));
  CHECK(damaged.status == 1);
  CHECK_THAT(damaged.err,
             Contains("no usable checkpoint; ") && Contains("model.safetensors is damaged") && !Contains("trying the checkpoint"));
  check_refused({"train", "--train-data", trained_model().data, "--logs", folder / "logs", "--resume", "latest"},
                {"it is not said which run goes on; --resume latest; give --name"});
}

TEST_CASE("a byte order mark and lines of blanks are no part of names", "[program]") {
  const TemporaryFolder folder;
  write_text(folder / "classes.txt", "\xEF\xBB\xBFred disc\r\n  \t\nblue square\n\n");
  write_text(folder / "templates.txt", "\xEF\xBB\xBF# a note\n \na {}\n");
  const auto json = json_of({"classify", "--model", trained_model().model, "--classes", folder / "classes.txt", "--templates",
                             folder / "templates.txt", picture(0), "--json"});
  std::set<std::string> labels;
  for (const auto& result : json["results"]) labels.insert(result["label"].get<std::string>());
  CHECK(labels == std::set<std::string>{"red disc", "blue square"});
  write_text(folder / "texts.txt", "\xEF\xBB\xBFred disc\n");
  const std::string out = folder / "out", names = folder / "names";
  REQUIRE(run({"embed", "--model", trained_model().model, "--texts", folder / "texts.txt", "--output", out, "--names", names}).status == 0);
  check_refused({"embed", "--model", trained_model().model, "--texts", folder / "texts.txt", "--output", out, "--names",
                 folder / "./" + fs::path(out).filename().string()},
                {"one file; --output, --names"});
  CHECK(read_file(names) == "red disc\n");
}

TEST_CASE("lists in other encodings than UTF-8 are refused: file, line and remedy are named", "[program]") {
  const TemporaryFolder folder;
  const std::string &model = trained_model().model, list = folder / "list.txt", classes = folder / "classes.txt", out = folder / "out";
  write_text(classes, "red disc\nblue square\n");
  const std::vector<Words> readers{{"classify", "--model", model, "--classes", list, picture(0)},
                                   {"classify", "--model", model, "--classes", classes, "--templates", list, picture(0)},
                                   {"eval", "--model", model, "--data", trained_model().data, "--seen-words", list},
                                   {"embed", "--model", model, "--output", out, "--texts", list}};
  for (const Words& reader : readers) {
    write_text(list, "\xEF\xBB\xBFred {}\r\n\r\ncaf\xE9 {}\r\n");
    check_refused(reader, {"error: the list cannot be read; " + list +
                           ", line 3 is not UTF-8; byte 4 is 0xE9; where it is Latin-1, iconv -f "
                           "latin1 -t utf-8 FILE > NEW makes it UTF-8"});
    write_text(list, std::string("\xFF\xFEr\0"
                                 "e\0"
                                 "d\0 \0{\0}\0\n\0",
                                 16));
    check_refused(reader, {list + ", line 1 is UTF-16, not UTF-8; iconv -f utf-16 -t utf-8"});
    write_text(list, "caf\xC3\xA9 {}\nred {}\n");
    CHECK(run(reader).status == 0);
  }
  fs::remove(out);
  write_text(list, "red\ncaf\xE9\n");
  check_refused(readers.back(), {"line 2 is not UTF-8"});
  CHECK_FALSE(fs::exists(out));
}

TEST_CASE("lists, texts and pictures may come through a pipe, as <(...) makes them; tables cannot", "[program]") {
  const TemporaryFolder folder;
  const std::string &model = trained_model().model, in = "/dev/stdin";
  write_text(folder / "classes.txt", "red disc\nblue square\n");
  write_text(folder / "templates.txt", "a {}\n");
  write_text(folder / "table.csv", "filepath,title\nx.png,a disc\n");
  // Output and messages of `cat FILE | twinlens WORDS`.
  const auto piped = [&](const std::string& file, const Words& words) {
    std::string command = "cat '" + file + "' | " + TWINLENS_PROGRAM;
    for (const std::string& word : words) command += " '" + word + "'";
    write_text(folder / "script", command + " >" + (folder / "out") + " 2>" + (folder / "err"));
    const int status = std::system(("sh " + (folder / "script")).c_str());
    return Outcome{WEXITSTATUS(status), read_file(folder / "out"), read_file(folder / "err")};
  };
  // Words with FILE in them, which give the same through a pipe.
  const auto check_same = [&](const std::string& file, Words words) {
    words.emplace_back("--json");
    const auto at = std::find(words.begin(), words.end(), "FILE");
    REQUIRE(at != words.end());
    *at = file;
    const auto expected = json_of(words);
    *at = in;
    const Outcome o = piped(file, words);
    INFO(o.err);
    REQUIRE(o.status == 0);
    auto got = nlohmann::json::parse(o.out);
    if (got.contains("results")) {
      for (auto& result : got["results"]) {
        if (result["image"] == in) result["image"] = file;
      }
    }
    CHECK(got == expected);
  };
  const std::string classes = folder / "classes.txt", out = folder / "made";
  check_same(classes, {"classify", "--model", model, "--classes", "FILE", picture(0)});
  check_same(folder / "templates.txt", {"classify", "--model", model, "--classes", classes, "--templates", "FILE", picture(0)});
  check_same(picture(0), {"classify", "--model", model, "--classes", classes, "FILE"});
  check_same(picture(0), {"preprocess", "--model", model, "--output", out, "FILE"});
  check_same(classes, {"embed", "--model", model, "--output", out, "--texts", "FILE"});
  check_same(picture(0), {"embed", "--model", model, "--output", out, "--images", "FILE"});
  check_same(classes, {"eval", "--model", model, "--data", trained_model().data, "--seen-words", "FILE"});
  check_same(classes, {"tokenize", "--vocab-size", "515", "--output", folder / "vocabulary", "--train", "FILE"});
  for (const char* type : {"auto", "csv", "webdataset", "folder"}) {
    const Outcome table = piped(folder / "table.csv", {"eval", "--model", model, "--dataset-type", type, "--data", in});
    CHECK(table.status == 1);
    CHECK_THAT(table.err, Contains("error: data cannot come through a pipe or a device, as it is read more than once; /dev/stdin; write "
                                   "it to a file"));
  }
}

TEST_CASE("eval --where: the same figures as the chosen samples alone, and no other picture is read", "[program]") {
  const TemporaryFolder folder;
  const std::string& model = trained_model().model;
  std::string table = "filepath,title,part,class\n", alone = table;
  for (const char* part : {"a", "b", "c"}) {
    for (int of = 0; of < 3; ++of) {
      for (int i = 0; i < 5; ++i) {
        const std::string row = picture(of * 5 + i) + ",a thing " + std::to_string(i) + "," + part + "," + std::to_string(of) + "\n";
        table += row;
        if (*part == 'b') alone += row;
        if (i == 2) table += "broken.png,damaged,c,0\n";
      }
    }
  }
  write_text(folder / "broken.png", "no picture");
  write_text(folder / "all.csv", table);
  write_text(folder / "alone.csv", alone);
  for (const std::string task : {"retrieval", "zeroshot", "knn", "linear-probe"}) {
    CAPTURE(task);
    const auto eval = [&](const Words& more) {
      Words words{"eval", "--model", model, "--task", task, "--batch-size", "4", "--json"};
      words.insert(words.end(), more.begin(), more.end());
      return words;
    };
    const Outcome chosen = run(eval({"--data", folder / "all.csv", "--where", "part=b"}));
    INFO(chosen.err);
    REQUIRE(chosen.status == 0);
    CHECK_THAT(chosen.err, !Contains("skipped"));
    CHECK(nlohmann::json::parse(chosen.out) == json_of(eval({"--data", folder / "alone.csv"})));
    CHECK_THAT(run(eval({"--data", folder / "all.csv"})).err, Contains("skipped "));
  }
  // Several are all meant.
  const Words both{"eval", "--model", model, "--data", folder / "all.csv", "--where", "class=2", "--where", "part=b", "--json"};
  CHECK(json_of(both)["num_images"] == 5);
}

TEST_CASE("a config with numbers that no model has: key, value and file are named", "[program]") {
  const TemporaryFolder folder;
  const std::string file = folder / "bad.json";
  const auto check = [&](const std::string& from, const std::string& to, const Words& message_has) {
    std::string config = toy_vit_json();
    config.replace(config.find(from), from.size(), to);
    write_text(file, config);
    INFO(config);
    Words all = message_has;
    all.push_back(file);
    check_refused({"info", file}, all);
  };
  check("\"embed_dim\": 32", "\"embed_dim\": 99999999999999", {"key 'embed_dim' = 99999999999999 is no whole number"});
  check("\"embed_dim\": 32", "\"embed_dim\": 32.7", {"key 'embed_dim' = 32.7 is no whole number"});
  check("\"embed_dim\": 32", "\"embed_dim\": true", {"key 'embed_dim' = true is no whole number"});
  check("\"embed_dim\": 32", "\"embed_dim\": 0", {"embed_dim = 0 is not above 0", "must be positive"});
  check("\"layers\": 2", "\"layers\": 1e99", {"key 'layers' = 1e+99 is no whole number"});
  check("\"layers\": 2", "\"layers\": [2, 2.5, 2, 2]", {"key 'layers' = 2.5 is no whole number"});
  check("\"layers\": 2", "\"layers\": []", {"vision_cfg.layers needs 1 or 4 numbers"});
  check("\"layers\": 2", "\"layers\": 2, \"mlp_ratio\": 1e99", {"mlp_ratio * width = "});
  check("\"context_length\": 24", "\"context_length\": 1", {"text_cfg.context_length = 1 has no room for text"});
  write_text(file, R"({"model_cfg": )" + toy_vit_json() + R"(, "preprocess_cfg": {"std": [0.5, 0, 0.5]}})");
  check_refused({"info", file}, {"preprocess_cfg.std = 0", "must be positive", file});
  check_refused(train(folder, trained_model().data, {"--model", vit(), "--force-context-length", "1"}),
                {"text_cfg.context_length = 1 has no room for text", "changed by --force-context-length"});
  check_refused(train(folder, trained_model().data, {"--model", vit(), "--force-image-size", "33", "--force-quick-gelu"}),
                {"image_size", "changed by --force-image-size, --force-quick-gelu"});
}

TEST_CASE("a PNG that promises too much is refused by its size; bytes of a picture are not printed", "[program]") {
  const TemporaryFolder folder;
  std::string png = toy_pairs(1)[0].png;
  png.replace(16, 8, std::string("\x00\x01\x86\xA0\x00\x01\x86\xA0", 8));
  write_text(folder / "large.png", png);
  const auto rank = [&](const Words& more) {
    Words all{"rank", "--model", trained_model().model, "--text", "x", folder / "large.png"};
    all.insert(all.end(), more.begin(), more.end());
    return all;
  };
  check_refused(rank({}), {"the picture has 100000 x 100000 pixels, more than ", "--max-image-pixels", folder / "large.png"});
  check_refused(rank({"--max-image-pixels", "0"}), {"100000 x 100000 pixels are promised and cannot be read"});
  const Outcome o = run({"info", picture(0)});
  CHECK(o.status == 1);
  CHECK_THAT(o.err, Contains("not JSON") && Contains(picture(0)));
  CHECK(std::all_of(o.err.begin(), o.err.end(), [](char c) { return c == '\n' || (c >= ' ' && c <= '~'); }));
}

}  // namespace
}  // namespace twinlens::test
