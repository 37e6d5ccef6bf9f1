// What users get wrong, and what goes wrong around them: the text of the error and the exit status.

#include <catch2/catch.hpp>
#include <cmath>
#include <csignal>
#include <filesystem>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "tests/program/program.h"
#include "tests/support/temporary_folder.h"
#include "tests/support/toy_data.h"

#include "twinlens/core/file.h"
#include "twinlens/core/safetensors.h"

namespace twinlens::test {
namespace {

namespace fs = std::filesystem;
using Catch::Contains;
using Words = std::vector<std::string>;

void check_fails(const Words& arguments, int status, const Words& message_has) {
  const Outcome o = run(arguments);
  CHECK(o.status == status);
  CHECK(o.out.empty());
  for (const std::string& part : message_has) CHECK_THAT(o.err, Contains(part));
}

class Folder {
 public:
  explicit Folder(int pairs = 20) : pairs_(toy_pairs(pairs)) {
    write_toy_folder(folder_ / "data", pairs_);
    write_text(folder_ / "vit.json", toy_vit_json());
  }
  std::string operator/(const std::string& name) const { return folder_ / name; }
  const std::vector<ToyPair>& pairs() const { return pairs_; }
  // Trains as run `name`.
  Words train(const std::string& name, const Words& more = {}) const {
    Words all{"train", "--train-data", folder_ / "data", "--model", folder_ / "vit.json", "--logs", folder_ / "logs", "--name", name};
    all.insert(all.end(), {"--batch-size", "4", "--epochs", "2", "--warmup", "0", "--log-every-n-steps", "1"});
    all.insert(all.end(), more.begin(), more.end());
    return all;
  }
  fs::path of(const std::string& name) const { return fs::path(folder_ / "logs") / name; }

 private:
  TemporaryFolder folder_;
  std::vector<ToyPair> pairs_;
};

TEST_CASE("an unknown flag, subcommand or value is exit status 2 and names the nearest", "[program]") {
  check_fails({"train", "--train-data", "x", "--bach-size", "4"}, 2,
              {"unknown flag --bach-size; did you mean --batch-size?", "twinlens train --help"});
  // Flags of open_clip that are not needed here.
  check_fails({"train", "--train-data", "x", "--train-num-samples", "4"}, 2,
              {"unknown flag --train-num-samples; shards are counted when they are opened: leave it out; --epochs"});
  check_fails({"train", "--train-data", "x", "--opt", "adamw"}, 2, {"unknown flag --opt; the optimizer is AdamW: leave it out"});
  check_fails({"train", "--train-data", "x", "--local-loss"}, 2, {"unknown flag --local-loss; the loss takes "});
  check_fails({"train", "--train-data", "x", "--val-num-samples=4"}, 2, {"unknown flag --val-num-samples; shards are counted"});
  check_fails({"train", "--train-data", "x", "--dataset-resampled"}, 2,
              {"unknown flag --dataset-resampled; an epoch takes each sample once", "--train-data-upsampling-factors weighs sources"});
  check_fails({"eval", "--modle=x"}, 2, {"unknown flag --modle; did you mean --model?"});
  check_fails({"clasify"}, 2, {"unknown subcommand 'clasify'; did you mean classify?"});
  check_fails({"train"}, 2, {"--train-data"});
  check_fails({"train", "--train-data", "x", "--batch-size", "0"}, 2, {"--batch-size"});
  check_fails({"train", "--train-data", "x", "--precision", "fp23"}, 2, {"--precision"});
  check_fails({"embed", "--model", "x"}, 2, {"--output"});
  check_fails({}, 2, {"twinlens --help"});
  // What the library finds wrong with the flags alone, whatever the files hold.
  const auto train_with = [](const Words& more) {
    Words all{"train", "--train-data", "x", "--val-data", "x"};
    all.insert(all.end(), more.begin(), more.end());
    return all;
  };
  check_fails(train_with({"--lr-scheduler", "const-cooldown"}), 2, {"no epochs to cool down in; --epochs-cooldown; "});
  check_fails(train_with({"--resume", "latest"}), 2, {"--resume latest; give --name"});
  check_fails(train_with({"--save-best", "foo"}), 2, {"no metric 'foo'; --save-best; use one of clip_val_loss"});
  check_fails(train_with({"--siglip", "--label-smoothing", "0.1"}), 2, {"--label-smoothing with --siglip; leave one out"});
  check_fails(train_with({"--async-step"}), 2, {"--async-step is for a card; --device cpu"});
  check_fails(train_with({"--train-data", "{1..x}.tar"}), 2, {"brace range '{1..x}' is not of numbers"});
}

TEST_CASE("missing files and unknown models are exit status 1 and say what to do", "[program]") {
  const Folder folder;
  check_fails({"train", "--train-data", folder / "nowhere"}, 1, {"error: data does not exist; " + (folder / "nowhere"), "--train-data"});
  check_fails({"train", "--train-data", folder / "no.tar"}, 1, {"No such file", folder / "no.tar"});
  check_fails({"train", "--train-data", folder / "no.csv"}, 1, {"No such file", folder / "no.csv"});
  check_fails({"train", "--train-data", folder / "vit.json"}, 1, {"cannot tell what kind of data", "--dataset-type"});
  check_fails({"train", "--train-data", folder / "data", "--model", "ViT-B-322"}, 1,
              {"unknown model 'ViT-B-322'", "did you mean ViT-B-32?"});
  check_fails({"info", "RN-50"}, 1, {"unknown model 'RN-50'", "did you mean RN50?"});
  check_fails({"info", "RN-50.json"}, 1, {"error: 'RN-50.json' is not there; MODEL; give a built-in name, or the path"});
  check_fails({"info", folder / "data"}, 1, {"/data' is no model; MODEL; give a built-in name, or the path"});
  write_text(folder / "other.json", "{}");
  check_fails({"info", folder / "other.json"}, 1, {"model config: no 'embed_dim'; " + (folder / "other.json")});
  check_fails({"embed", "--model", "ViT-B-32", "--texts", "x", "--output", "y"}, 1, {"'ViT-B-32' has no weights", "LOGS/NAME/model"});
  check_fails({"embed", "--model", folder / "data", "--texts", "x", "--output", "y"}, 1, {"data' has no weights", "LOGS/NAME/model"});
  check_fails({"embed", "--model", folder / "nowhere", "--texts", "x", "--output", "y"}, 1, {"nowhere' is not there", "LOGS/NAME/model"});
  const std::string& model = trained_model().model;
  check_fails({"classify", "--model", model, "--classes", folder / "no.txt", folder / "data/00.png"}, 1,
              {"cannot be read", folder / "no.txt"});
  check_fails({"rank", "--model", model, "--text", "x", folder / "no.png"}, 1, {"No such file", folder / "no.png"});
  check_fails({"rank", "--model", model, "--text", "x", folder / "data/00.txt"}, 1, {folder / "data/00.txt"});
  check_fails({"embed", "--model", model, "--output", folder / "out"}, 2, {"either --images or --texts"});
  check_fails({"search", "--model", model, "--index", "x", "--image", "y", "z"}, 2,
              {"give either a text or --image", "twinlens search --help"});
  check_fails({"train", "--train-data", "x", "--dataset-type", "wds"}, 2, {"--dataset-type", "webdataset"});
  check_fails({"embed", "--model", model, "--images", folder / "data/00.png", "--output", folder / "nowhere/out"}, 1,
              {"No such file", folder / "nowhere/out", "its folder must exist"});
  check_fails({"embed", "--model", model, "--device", "cuda", "--images", folder / "data/00.png", "--output", folder / "out"}, 1,
              {"error: "});
}

TEST_CASE("a folder in the place of a file, a name that is too long, an index of other values: said, and not called unexpected",
          "[program]") {
  const Folder folder;
  const std::string &model = trained_model().model, data = folder / "data", image = folder / "data/00.png", out = folder / "out";
  const auto said = [](const Words& arguments, const Words& message_has) {
    const Outcome o = run(arguments);
    INFO(o.err);
    CHECK(o.status == 1);
    CHECK_THAT(o.err, Contains("error: ") && !Contains("please report"));
    for (const std::string& part : message_has) CHECK_THAT(o.err, Contains(part));
  };
  write_text(folder / "classes.txt", "red\ngreen\n");
  said({"preprocess", "--model", model, "--output", out, data}, {"Is a directory; '" + data + "'; give a file, not a folder"});
  said({"classify", "--model", model, "--classes", data, image}, {"it is a folder; " + data});
  said({"classify", "--model", model, "--classes", folder / "classes.txt", "--templates", data, image}, {"Is a directory; '" + data});
  said({"embed", "--model", model, "--texts", data, "--output", out}, {"it is a folder; " + data});
  said({"tokenize", "--train", data, "--output", out}, {"it is a folder; " + data});

  const std::string long_name(300, 'x'), too_long = "File name too long; ";
  fs::create_directories(folder / "logs");
  said(folder.train(long_name), {"run folder cannot be looked at: " + too_long, "; choose another --logs or --name"});
  said(folder.train(long_name, {"--resume", "latest"}), {"run folder cannot be looked at: " + too_long});
  said({"embed", "--model", model, "--images", image, "--output", out, "--names", folder / long_name}, {too_long});
  said({"embed", "--model", model, "--images", image, "--output", folder / long_name}, {too_long});
  said({"classify", "--model", model, "--classes", folder / "classes.txt", "--templates", long_name, image}, {too_long});
  said({"index", "--model", model, "--index", folder / long_name, data}, {too_long});
  said({"info", long_name}, {"unknown model"});

  const std::string index = folder / "index";
  REQUIRE(run({"index", "--model", model, "--index", index, data}).status == 0);
  for (const char* facts : {"[]", "7", "null", R"({"probe": "none"})", R"({"count": "many"})", R"({"model": 7})", "{"}) {
    CAPTURE(facts);
    write_text(index + "/index.json", facts);
    said({"search", "--model", model, "--index", index, "x"},
         {"the index is damaged: ", index + "/index.json; make it anew by twinlens index"});
  }
}

TEST_CASE("a CSV without the wanted columns: the error lists those it has", "[program]") {
  const Folder folder;
  write_text(folder / "pairs.csv", "picture,words\ndata/00.png,a disc\n");
  check_fails({"train", "--train-data", folder / "pairs.csv"}, 1,
              {"no column 'filepath'", "has the columns picture, words", "--csv-img-key", folder / "pairs.csv"});
  check_fails({"train", "--train-data", folder / "pairs.csv", "--csv-img-key", "picture", "--csv-caption-key", "title"}, 1,
              {"no column 'title'", "has the columns picture, words", "--csv-caption-key"});
}

TEST_CASE("samples that cannot be used are listed in skipped.tsv and training goes on, up to --max-skipped", "[program]") {
  const Folder folder;
  const std::string& png = folder.pairs()[2].png;
  write_text(folder / "data/02.png", png.substr(0, png.size() / 2));
  write_text(folder / "data/03.png", "this is no picture");
  write_text(folder / "data/04.png", "");
  write_text(folder / "data/05.txt", " \n");
  fs::remove(folder / "data/06.txt");
  Words reasons{"02.png\t", "03.png\t", "04.png\tthe file is empty", "05.png\tthe caption is empty",
                "06.png\tno caption; 06.txt is not there"};
  std::size_t bad = 5;
  if (::geteuid() != 0) {
    ::chmod((folder / "data/07.png").c_str(), 0);
    reasons.push_back("07.png\tcannot open the file: Permission denied");
    ++bad;
  }
  const Outcome o = run(folder.train("run", {"--max-skipped", "0.4"}));
  INFO(o.err);
  CHECK(o.status == 0);
  const std::string skipped = read_file((folder.of("run") / "skipped.tsv").string());
  INFO(skipped);
  for (const std::string& reason : reasons) CHECK_THAT("\n" + skipped, Contains("\n" + reason));
  CHECK(static_cast<std::size_t>(std::count(skipped.begin(), skipped.end(), '\n')) == bad);
  CHECK_THAT(o.err, Contains("skipped 05.png: the caption is empty"));

  const Outcome stopped = run(folder.train("stopped", {}));
  CHECK(stopped.status == 1);
  CHECK_THAT(stopped.err, Contains("of 20 samples cannot be used, more than --max-skipped allows; first: ") &&
                              Contains("mend the data or raise --max-skipped"));
  CHECK_THAT(read_file((folder.of("stopped") / "skipped.tsv").string()), Contains("05.png\tthe caption is empty"));
}

TEST_CASE("a picture that is too large is refused from its header", "[program]") {
  const Folder folder;
  const Outcome o = run(folder.train("run", {"--max-image-pixels", "2000", "--max-skipped", "1"}));
  INFO(o.err);
  CHECK(o.status == 0);
  // Every second picture has 47 x 47 pixels.
  CHECK_THAT(read_file((folder.of("run") / "skipped.tsv").string()), Contains("01.png\tthe picture has 47 x 47 pixels, more than 2000"));
}

#if !defined(TWINLENS_SANITIZED)  // whose own memory does not fit under the limit
TEST_CASE("threads that cannot be started are an error, and those that were end", "[program]") {
  const Folder folder;
  // 1 GB of stack each, of 8 GB: a few start, and much is left for everything else.
  std::string command = "ulimit -s 1000000 && ulimit -v 8000000 || exit 77; exec " + std::string(TWINLENS_PROGRAM);
  for (const std::string& word : folder.train("run", {"--workers", "1000", "--threads", "1"})) command += " '" + word + "'";
  write_text(folder / "script", command + " 2>" + (folder / "err"));
  const int status = std::system(("timeout 60 sh " + (folder / "script")).c_str());
  REQUIRE(WIFEXITED(status));
  if (WEXITSTATUS(status) == 77) {
    WARN("skipped: no right to set these limits");
    return;
  }
  CHECK(WEXITSTATUS(status) == 1);
  CHECK_THAT(read_file(folder / "err"), Contains("of 1000 threads can be started: ") && Contains("; --workers; choose fewer"));
}
#endif

TEST_CASE("weights that do not fit the model: tensor and both shapes are named", "[program]") {
  const Folder folder;
  std::string other = toy_vit_json();
  other.replace(other.find("\"embed_dim\": 32"), 15, "\"embed_dim\": 48");
  write_text(folder / "other.json", other);
  check_fails(
      {"train", "--train-data", folder / "data", "--model", folder / "other.json", "--pretrained", trained_model().model, "--logs",
       folder / "logs"},
      1, {"weights do not fit the model", "text_projection (model [32,48], given [32,32])", "visual.proj (model [64,48], given [64,32])"});
  CHECK_FALSE(fs::exists(folder / "logs"));
}

TEST_CASE("a loss that is not finite ends training with the step and the samples; the checkpoint before is kept", "[program]") {
  const Folder folder;
  const Outcome o = run(folder.train("wild", {"--lr", "1e30", "--save-every-steps", "1"}));
  CHECK(o.status == 1);
  CHECK_THAT(o.err, Contains("is not finite at step 2; samples ") && Contains(".png, ") && Contains("the last good checkpoint is ") &&
                        Contains("wild/checkpoints/step_1"));
  for (const auto& [name, tensor] : read_safetensors((folder.of("wild") / "checkpoints/step_1/model.safetensors").string())) {
    INFO(name);
    for (const float x : tensor.to_vector()) REQUIRE(std::isfinite(x));
  }

  // Weights with a NaN from the start.
  fs::copy(trained_model().model, folder / "nan");
  auto weights = read_safetensors(folder / "nan/open_clip_model.safetensors");
  weights.at("visual.proj").fill_(std::nan(""));
  write_safetensors(folder / "nan/open_clip_model.safetensors", weights);
  const Outcome nan = run(folder.train("nan", {"--pretrained", folder / "nan"}));
  CHECK(nan.status == 1);
  CHECK_THAT(nan.err, Contains("the loss is not finite at step 1; samples ") && Contains("the last good checkpoint is none yet"));
  CHECK_FALSE(fs::exists(folder.of("nan") / "model"));
  CHECK_FALSE(fs::exists(folder.of("nan") / "checkpoints"));
}

TEST_CASE("a logit scale that overflows gives no probabilities", "[program]") {
  const Folder folder;
  fs::copy(trained_model().model, folder / "huge");
  auto weights = read_safetensors(folder / "huge/open_clip_model.safetensors");
  weights.at("logit_scale").fill_(1000.0);
  write_safetensors(folder / "huge/open_clip_model.safetensors", weights);
  check_fails({"rank", "--model", folder / "huge", "--text", "x", picture(0)}, 1, {"error: logit scale: exp(1000"});
}

TEST_CASE("a file that cannot grow while a checkpoint is saved: error, and the run goes on from the one before", "[program]") {
  const Folder folder;
  REQUIRE(run(folder.train("whole")).status == 0);
  // A run that has come to step 5 of 10, then may write 20 kB a file.
  REQUIRE(run(folder.train("full")).status == 0);
  const fs::path checkpoints = folder.of("full") / "checkpoints";
  fs::remove_all(checkpoints / "step_10");
  Start limited{folder.train("full", {"--resume", "latest"}), {}, {}, 20'000};
  const Outcome o = run(limited);
  CHECK(o.status == 1);
  CHECK_THAT(o.err, Contains("error: cannot write the file: File too large") && Contains("free some space"));
  CHECK(fs::exists(checkpoints / "step_5"));
  for (const auto& entry : fs::directory_iterator(checkpoints)) {
    INFO(entry.path());
    CHECK((entry.path().filename() == "step_5" || entry.path().filename() == "latest"));
  }
  const Outcome again = run(folder.train("full", {"--resume", "latest"}));
  INFO(again.err);
  CHECK(again.status == 0);
  for (const char* file : {"checkpoints/step_10/model.safetensors", "checkpoints/step_10/optimizer.safetensors"}) {
    CHECK(read_file((folder.of("whole") / file).string()) == read_file((folder.of("full") / file).string()));
  }
}

TEST_CASE("a converted model that finds no room leaves neither a file nor a folder behind", "[program]") {
  const Folder folder;
  const Outcome o = run(Start{{"convert", trained_model().model, "--to", "hf", "--output", folder / "converted"}, {}, {}, 20'000});
  CHECK(o.status == 1);
  CHECK_THAT(o.err, Contains("error: cannot write the file: File too large"));
  CHECK_FALSE(fs::exists(folder / "converted"));
}

TEST_CASE("a disk that is full while a checkpoint is saved: error, and the checkpoint before is whole", "[program]") {
  const Folder folder;
  // A disk of 2 MB, mounted for this command alone: one checkpoint fits and a half.
  std::string command =
      std::string("d=") + (folder / "disk") + "; mkdir $d && mount -t tmpfs -o size=SIZE none $d || exit 77; " + TWINLENS_PROGRAM;
  const Outcome whole = run(folder.train("whole", {"--save-every-steps", "1", "--keep-last", "100"}));
  REQUIRE(whole.status == 0);
  std::uintmax_t bytes = 0;
  for (const auto& entry : fs::directory_iterator(folder.of("whole") / "checkpoints/step_1")) bytes += entry.file_size();
  command.replace(command.find("SIZE"), 4, std::to_string(bytes * 3 / 2 + 50'000));
  for (std::string word : folder.train("run", {"--save-every-steps", "1"})) {
    if (word == folder / "logs") word = folder / "disk";
    command += " '" + word + "'";
  }
  command += " 2>$d.err; echo $? >$d.status; cp -r $d/run/checkpoints $d.kept";
  write_text(folder / "script", command);
  const int status = std::system(("unshare -m sh " + (folder / "script") + " 2>/dev/null").c_str());
  if (!fs::exists(folder / "disk.status")) {
    WARN("skipped: no right to mount a file system (status " << status << ")");
    return;
  }
  CHECK(read_file(folder / "disk.status") == "1\n");
  CHECK_THAT(read_file(folder / "disk.err"), Contains("error: ") && Contains("No space left on device") && Contains("free some space"));
  CHECK(read_file(folder / "disk.kept/latest") == "step_1\n");
  for (const char* file : {"model.safetensors", "optimizer.safetensors", "state.json"}) {
    CHECK(read_file(folder / ("disk.kept/step_1/" + std::string(file))) ==
          read_file((folder.of("whole") / "checkpoints/step_1" / file).string()));
  }
  for (const auto& entry : fs::directory_iterator(folder / "disk.kept")) {
    INFO(entry.path());
    CHECK((entry.path().filename() == "step_1" || entry.path().filename() == "latest"));
  }
}

}  // namespace
}  // namespace twinlens::test
