// Subcommands over many pictures: preprocess, embed from folders and tars, index and search; and training a vocabulary.

#include <catch2/catch.hpp>
#include <cmath>
#include <fcntl.h>
#include <filesystem>
#include <nlohmann/json.hpp>
#include <sstream>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include "tests/program/program.h"
#include "tests/support/archive_files.h"
#include "tests/support/temporary_folder.h"
#include "tests/support/toy_data.h"

#include "twinlens/clip/image.h"
#include "twinlens/core/file.h"
#include "twinlens/core/safetensors.h"

namespace twinlens::test {
namespace {

namespace fs = std::filesystem;
using Catch::Contains;
using Json = nlohmann::json;
using Words = std::vector<std::string>;

std::vector<std::string> lines_of(const std::string& path) {
  std::istringstream text(read_file(path));
  std::vector<std::string> out;
  for (std::string line; std::getline(text, line);) out.push_back(line);
  return out;
}

TEST_CASE("preprocess writes the model's input", "[program]") {
  const TemporaryFolder folder;
  fs::copy_file(picture(1), folder / "own.png");
  const Outcome own = run({"preprocess", "--model", "ViT-B-32", "--output", folder / "own.png", folder / "own.png"});
  CHECK(own.status == 1);
  CHECK_THAT(own.err, Contains("error: the picture is read, and would be replaced; --output " + (folder / "own.png")));
  CHECK(read_file(folder / "own.png") == read_file(picture(1)));
  const Json json = json_of({"preprocess", "--model", "ViT-B-32", "--output", folder / "p", picture(1), "--json"});
  CHECK(json["shape"] == Json({3, 224, 224}));
  const Tensor pixels = SafetensorsFile(folder / "p").tensor("pixels");
  REQUIRE(pixels.dtype() == DType::f32);
  REQUIRE(pixels.shape() == Shape{3, 224, 224});
  const Image image = apply(EvalTransform{}, read_image(picture(1)));
  CHECK(pixels.to_vector() == to_chw_float(image, kClipMean, kClipStd));
  // A model folder, without its weights being read; text for people.
  CHECK_THAT(run({"preprocess", "--model", trained_model().model, "--output", folder / "q", picture(0)}).out, Contains("3 x 32 x 32"));

  const Outcome bomb = run({"preprocess", "--model", "ViT-B-32", "--output", folder / "r", "--max-image-pixels", "100", picture(1)});
  CHECK(bomb.status == 1);
  CHECK_THAT(bomb.err, Contains("more than 100; " + picture(1)) && Contains("--max-image-pixels"));
  CHECK_FALSE(fs::exists(folder / "r"));
  const Outcome typo = run({"preprocess", "--model", "ViT-B-32", "--ouput", "x", picture(1)});
  CHECK(typo.status == 2);
  CHECK_THAT(typo.err, Contains("unknown flag --ouput; did you mean --output?"));
}

TEST_CASE("preprocess --exif-orientation turns the picture upright", "[program]") {
  const TemporaryFolder folder;
  const std::string lying = std::string(TWINLENS_SOURCE_DIR) + "/tests/clip/data/exif_6.jpg";
  for (const bool upright : {false, true}) {
    Words words{"preprocess", "--model", trained_model().model, "--output", folder / "p", lying};
    if (upright) words.emplace_back("--exif-orientation");
    REQUIRE(run(words).status == 0);
    Image image = read_image(lying, {1000, upright});
    CHECK((upright ? image.height > image.width : image.width > image.height));
    const EvalTransform transform{32, ResizeMode::shortest, Filter::bicubic, 0, {}};
    CHECK(SafetensorsFile(folder / "p").tensor("pixels").to_vector() == to_chw_float(apply(transform, image), kClipMean, kClipStd));
  }
}

TEST_CASE("embed goes through files, folders and tars and leaves bad pictures there out", "[program]") {
  const TemporaryFolder folder;
  const std::string& model = trained_model().model;
  fs::create_directories(folder / "tree/b");
  fs::copy(picture(0), folder / "tree/b/0.png");
  fs::copy(picture(1), folder / "tree/a.png");
  write_text(folder / "tree/notes.txt", "no picture");
  write_text(folder / "tree/b/broken.png", "no picture either");
  write_text(folder / "tree/b/._0.png", "what macOS keeps");
  write_text(folder / "tree/b/scan.tif", "II*");
  REQUIRE(::mkfifo((folder / "tree/pipe.png").c_str(), 0600) == 0);
  write_tar(folder / "some.tar", {{"x/2.png", read_file(picture(2))}, {"x/2.txt", "a caption"}, {"bad.jpg", "nothing"}});
  write_archive(folder / "more.tar.gz", {{"3.PNG", read_file(picture(3))}}, [](archive* out) {
    archive_write_set_format_ustar(out);
    archive_write_add_filter_gzip(out);
  });
  Words words{"embed",   "--model",        model,    "--output", folder / "out", "--batch-size", "2",
              "--names", folder / "names", "--json", "--images"};
  words.insert(words.end(), {folder / "tree", picture(4), folder / "some.tar", folder / "more.tar.gz"});
  const Outcome o = run(words);
  INFO(o.err);
  REQUIRE(o.status == 0);
  const Json json = Json::parse(o.out);
  CHECK(json["count"] == 5);
  CHECK(json["skipped"] == 4);
  CHECK_THAT(o.err, Contains("tree/pipe.png: not a file") && Contains("tree/b/scan.tif: a format that is not read"));
  CHECK_THAT(o.err, Contains("skipped " + (folder / "tree/b/broken.png")) && Contains("skipped " + (folder / "some.tar") + ":bad.jpg"));
  CHECK(lines_of(folder / "names") == Words{folder / "tree/a.png", folder / "tree/b/0.png", picture(4), (folder / "some.tar") + ":x/2.png",
                                            (folder / "more.tar.gz") + ":3.PNG"});
  REQUIRE(
      run({"embed", "--model", model, "--output", folder / "same", "--images", picture(1), picture(0), picture(4), picture(2), picture(3)})
          .status == 0);
  CHECK(SafetensorsFile(folder / "out").tensor("embeddings").to_vector() ==
        SafetensorsFile(folder / "same").tensor("embeddings").to_vector());
  for (const std::string& name : folder.names()) CHECK(name.find("twinlens-rows") == std::string::npos);

  // A picture that was asked for by name is an error, and so is nothing at all.
  const Outcome bad = run({"embed", "--model", model, "--output", folder / "none", "--images", picture(0), folder / "tree/b/broken.png"});
  CHECK(bad.status == 1);
  CHECK_THAT(bad.err, Contains("error: ") && Contains(folder / "tree/b/broken.png") &&
                          Contains("mend it or do not name it, or give its folder, in which such pictures are skipped"));
  CHECK_FALSE(fs::exists(folder / "none"));
  fs::create_directories(folder / "empty");
  const Outcome nothing = run({"embed", "--model", model, "--output", folder / "none", "--images", folder / "empty"});
  CHECK(nothing.status == 1);
  CHECK_THAT(nothing.err, Contains("no usable picture; " + (folder / "empty")));
}

TEST_CASE("embed looks at the places that it writes to before it works, and keeps what it reads", "[program]") {
  const TemporaryFolder folder;
  const std::string& model = trained_model().model;
  // The last picture is found to be none only after all others.
  fs::copy(picture(0), folder / "0.png");
  write_text(folder / "last.png", "no picture");
  write_text(folder / "t.txt", "red\n");
  fs::create_directories(folder / "dir");
  const auto refused = [&](const Words& more, const std::string& message) {
    Words words{"embed", "--model", model};
    words.insert(words.end(), more.begin(), more.end());
    const Outcome o = run(words);
    INFO(o.err);
    CHECK(o.status == 1);
    CHECK_THAT(o.err, Contains("error: " + message));
  };
  const std::string image = folder / "0.png", last = folder / "last.png", dir = folder / "dir", texts = folder / "t.txt";
  const std::string is_folder = "not a file but a folder; '" + dir + "'; give the name of a file";
  refused({"--output", dir, "--images", image, last}, is_folder);
  refused({"--output", folder / "out", "--names", dir, "--images", image, last}, is_folder);
  refused({"--output", "/dev/null", "--images", image, last}, "not a file but a device");
  // However the one file is written, also where it is not there yet.
  const fs::path before = fs::current_path();
  fs::current_path(folder.path());
  refused({"--output", "./same", "--names", "same", "--images", image}, "names and embeddings would be one file; --output, --names same");
  fs::current_path(before);
  CHECK_FALSE(fs::exists(folder / "same"));
  refused({"--output", image, "--images", last, folder / "./0.png"}, "the file is read, and would be replaced; --output " + image);
  refused({"--output", model + "/open_clip_config.json", "--texts", texts}, "the file is read, and would be replaced; --output " + model);
  refused({"--output", folder / "out", "--names", texts, "--texts", texts}, "the file is read, and would be replaced; --names " + texts);
  const auto of_folder = [&](const std::string& output) {
    return run({"embed", "--model", model, "--images", folder.path(), "--output", output});
  };
  CHECK_THAT(of_folder(image).err, Contains("the file is read, and would be replaced; --output " + image));
  CHECK(of_folder(folder / "features.safetensors").status == 0);
  CHECK(of_folder(folder / "features.safetensors").status == 0);
  CHECK(read_file(image) == read_file(picture(0)));
  CHECK(read_file(texts) == "red\n");
  // Other files are replaced, which is said.
  const Words again{"embed", "--model", model, "--output", folder / "out", "--names", folder / "names", "--texts", texts};
  CHECK_THAT(run(again).err, !Contains("replaced"));
  CHECK_THAT(run(again).err, Contains("note: the file that was there is replaced; --output " + (folder / "out")) &&
                                 Contains("note: the file that was there is replaced; --names " + (folder / "names")));
}

TEST_CASE("a name with a line break has no place in a list of names", "[program]") {
  const TemporaryFolder folder;
  const std::string& model = trained_model().model;
  fs::create_directories(folder / "tree");
  fs::copy(picture(0), folder / "tree/0.png");
  fs::copy(picture(1), folder / "tree/a\nb.png");
  const std::string message = "its name has a line break, and lists have a name a line; rename it";
  Words embed{"embed", "--model", model, "--output", folder / "out", "--names", folder / "names", "--json", "--images", folder / "tree"};
  const Outcome o = run(embed);
  CHECK(Json::parse(o.out)["skipped"] == 1);
  CHECK_THAT(o.err, Contains("skipped " + (folder / "tree/a\nb.png") + ": " + message));
  CHECK(lines_of(folder / "names") == Words{folder / "tree/0.png"});
  embed.back() = folder / "tree/a\nb.png";
  CHECK_THAT(run(embed).err, Contains("error: the picture cannot be listed; ") && Contains(message));
  CHECK(json_of({"index", "--model", model, "--index", folder / "index", folder / "tree", "--json"})["skipped"] == 1);
  CHECK(lines_of(folder / "index/names.txt") == Words{folder / "tree/0.png"});
}

TEST_CASE("rank and classify leave out what cannot be read, say so and go on", "[program]") {
  const TemporaryFolder folder;
  const std::string& model = trained_model().model;
  write_text(folder / "broken.png", "no picture");
  write_text(folder / "classes.txt", "red\ngreen\n");
  fs::create_directory(folder / "empty");
  fs::create_directory(folder / "few");
  for (const int i : {0, 1}) fs::copy_file(picture(i), folder / ("few/" + std::to_string(i) + ".png"));
  write_text(folder / "few/broken.png", "no picture");
  const std::string missing = folder / "missing.png", broken = folder / "broken.png";
  for (const Words& command : {Words{"rank", "--model", model, "--text", "a red square"},
                               Words{"classify", "--model", model, "--classes", folder / "classes.txt", "--top", "1"}}) {
    const auto with = [&](const Words& images) {
      Words words = command;
      words.emplace_back("--json");
      words.insert(words.end(), images.begin(), images.end());
      return words;
    };
    const Outcome some = run(with({missing, picture(0), folder / "empty", broken, picture(1)}));
    INFO(some.err);
    CHECK(some.status == 0);
    CHECK_THAT(some.err, Contains("skipped " + missing + ": cannot open the file: No such file") &&
                             Contains("skipped " + broken + ": not a picture of a known format") &&
                             Contains("note: 2 of 4 pictures were skipped"));
    // The others are what they are without it.
    Json expected = json_of(with({picture(0), picture(1)}));
    CHECK_FALSE(expected.contains("skipped"));
    expected["skipped"] = 2;
    CHECK(Json::parse(some.out) == expected);
    // A folder is what its pictures are.
    const Outcome found = run(with({folder / "few"}));
    CHECK(found.status == 0);
    CHECK_THAT(found.err, Contains("skipped " + (folder / "few/broken.png") + ": ") && Contains("note: 1 of 3 pictures were skipped"));
    Json named = json_of(with({folder / "few/0.png", folder / "few/1.png"}));
    named["skipped"] = 1;
    CHECK(Json::parse(found.out) == named);
    const Outcome nothing = run(with({folder / "empty"}));
    CHECK(nothing.status == 1);
    CHECK_THAT(nothing.err, Contains("error: no picture in it; " + (folder / "empty") + "; give pictures, or folders or tars"));
    const Outcome none = run(with({missing, broken}));
    CHECK(none.status == 1);
    CHECK(none.out.empty());
    CHECK_THAT(none.err, Contains("error: none of 2 pictures is usable; first: cannot open the file: No such file") && Contains(missing));
  }
}

TEST_CASE("index and search", "[program]") {
  const TemporaryFolder folder;
  const std::string &model = trained_model().model, &data = trained_model().data;
  const Json built = json_of({"index", "--model", model, "--index", folder / "index", data, "--json"});
  CHECK(built["count"] == 24);
  CHECK(built["skipped"] == 0);
  const Words base{"search", "--model", model, "--index", folder / "index", "--json"};
  Words by_text = base;
  by_text.insert(by_text.end(), {"--top", "24", "a red square"});
  const Json results = json_of(by_text)["results"];
  REQUIRE(results.size() == 24);
  // The same order, scores and probabilities as rank gives.
  Words ranking{"rank", "--model", model, "--text", "a red square", "--json"};
  for (int i = 0; i < 24; ++i) ranking.push_back(picture(i));
  const Json ranked = json_of(ranking)["results"];
  double total = 0.0;
  for (std::size_t i = 0; i < 24; ++i) {
    CHECK(results[i]["text"] == "a red square");
    CHECK(results[i]["image"] == ranked[i]["image"]);
    CHECK(results[i]["score"].get<double>() == Approx(ranked[i]["score"].get<double>()).margin(1e-6));
    CHECK(results[i]["probability"].get<double>() == Approx(ranked[i]["probability"].get<double>()).margin(1e-6));
    total += results[i]["probability"].get<double>();
  }
  CHECK(total == Approx(1.0));
  // A picture finds itself.
  Words by_image = base;
  by_image.insert(by_image.end(), {"--top", "1", "--image", picture(7)});
  const Json itself = json_of(by_image)["results"];
  REQUIRE(itself.size() == 1);
  CHECK(itself[0]["image"] == picture(7));
  CHECK(itself[0]["score"].get<double>() == Approx(1.0).margin(1e-5));

  CHECK_THAT(run({"search", "--model", model, "--index", folder / "index"}).err, Contains("either a text or --image"));
  const Outcome none = run({"search", "--model", model, "--index", folder.path(), "x"});
  CHECK(none.status == 1);
  CHECK_THAT(none.err, Contains("not an index: index.json is missing; " + folder.path()));
  // Weights of another run.
  fs::copy(model, folder / "other");
  auto weights = read_safetensors(folder / "other/open_clip_model.safetensors");
  Tensor projection = weights.at("text_projection");
  for (int i = 0; i < 64; ++i) projection.data<float>()[i] = -3.0F * projection.data<float>()[i] + 0.5F;
  write_safetensors(folder / "other/open_clip_model.safetensors", weights);
  const Outcome other = run({"search", "--model", folder / "other", "--index", folder / "index", "x"});
  CHECK(other.status == 1);
  CHECK_THAT(other.err, Contains("the index was made by another model (" + model + ")"));
}

TEST_CASE("a second index into the same folder at the same time is refused", "[program]") {
  const TemporaryFolder folder;
  const Words words{"index", "--model", trained_model().model, "--index", folder / "index", picture(0)};
  REQUIRE(run(words).status == 0);
  const std::string before = read_file(folder / "index/embeddings.safetensors");
  const int first = ::open((folder / "index").c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  REQUIRE(::flock(first, LOCK_EX | LOCK_NB) == 0);
  const Outcome second = run(words);
  ::close(first);
  CHECK(second.status == 1);
  CHECK(second.err ==
        "error: another process is making an index in this folder; " + (folder / "index") + "; wait for it, or choose another --index\n");
  CHECK(read_file(folder / "index/embeddings.safetensors") == before);
  CHECK(run(words).status == 0);
}

TEST_CASE("index leaves nothing that is no index: no folder for no picture, no files of a process that was killed", "[program]") {
  const TemporaryFolder folder;
  fs::create_directories(folder / "none");
  const Words to{"index", "--model", trained_model().model, "--index", folder / "index"};
  const auto with = [&](const std::string& source) {
    Words words = to;
    words.push_back(source);
    return run(words).status;
  };
  CHECK(with(folder / "none") == 1);
  CHECK_FALSE(fs::exists(folder / "index"));
  fs::create_directories(folder / "index/.new-1");
  write_text(folder / "index/.new-1/embeddings.safetensors", "half an index");
  CHECK(with(picture(0)) == 0);
  CHECK_FALSE(fs::exists(folder / "index/.new-1"));
  CHECK(fs::exists(folder / "index/index.json"));
}

// Pictures whose features depend on how they are decoded: odd.jpg is three times the size of the model's input and lies on its side.
TEST_CASE("an index knows how its pictures were decoded, and a search decodes its own so", "[program]") {
  const TemporaryFolder folder;
  const std::string& model = trained_model().model;
  const std::string odd = std::string(TWINLENS_SOURCE_DIR) + "/tests/clip/data/odd.jpg";
  const bool reduces = image_formats().find("libjpeg") != std::string::npos;
  using Metadata = std::map<std::string, std::string>;
  const auto score = [&](const std::string& index) {
    return json_of({"search", "--model", model, "--index", index, "--image", odd, "--json"})["results"][0]["score"].get<double>();
  };
  struct Case {
    Words flags;
    Metadata recorded;
  };
  const std::vector<Case> cases{{{}, {{"exif_orientation", "false"}, {"fast_decode", "false"}}},
                                {{"--exif-orientation"}, {{"exif_orientation", "true"}, {"fast_decode", "false"}}},
                                {{"--fast-decode"}, {{"exif_orientation", "false"}, {"fast_decode", "true"}}},
                                {{"--exif-orientation", "--fast-decode"}, {{"exif_orientation", "true"}, {"fast_decode", "true"}}}};
  for (const Case& c : cases) {
    CAPTURE(c.flags);
    Words index{"index", "--model", model, "--index", folder / "index", odd};
    index.insert(index.end(), c.flags.begin(), c.flags.end());
    REQUIRE(run(index).status == 0);
    Words embed{"embed", "--model", model, "--output", folder / "rows", "--images", odd};
    embed.insert(embed.end(), c.flags.begin(), c.flags.end());
    REQUIRE(run(embed).status == 0);
    Metadata metadata = c.recorded;
    metadata["format"] = "pt";
    const std::string file = folder / "index/embeddings.safetensors";
    CHECK(SafetensorsFile(file).metadata() == metadata);
    CHECK(read_file(folder / "rows") == read_file(file));
    CHECK(score(folder / "index") == Approx(1.0).margin(1e-5));

    // Without the record, as files were before it, it opens with a note, and the picture is decoded the plain way: not what the index has.
    const auto rows = read_safetensors(file);
    write_safetensors(file, rows);
    const Outcome noted = run({"search", "--model", model, "--index", folder / "index", "--image", odd});
    CHECK(noted.status == 0);
    CHECK_THAT(noted.err, Contains("does not say how its pictures were decoded"));
    if (c.flags.empty() || c.flags == Words{"--exif-orientation"} || reduces) {
      CHECK((score(folder / "index") > 1.0 - 1e-6) == c.flags.empty());
    }
    write_safetensors(file, rows, {{"fast_decode", "1/16"}});
    const Outcome unknown = run({"search", "--model", model, "--index", folder / "index", "--image", odd});
    CHECK(unknown.status == 1);
    CHECK_THAT(unknown.err, Contains("not known here: fast_decode is '1/16'; '" + file + "'; make it anew by twinlens embed or index"));
  }
  // Texts are not decoded.
  write_text(folder / "t.txt", "a red square");
  REQUIRE(run({"embed", "--model", model, "--output", folder / "t", "--texts", folder / "t.txt", "--fast-decode"}).status == 0);
  CHECK(SafetensorsFile(folder / "t").metadata() == Metadata{{"format", "pt"}});
}

TEST_CASE("tokenize: cleaning, and a vocabulary trained and used", "[program]") {
  const TemporaryFolder folder;
  const std::string curly = "it\xE2\x80\x99s";  // it’s
  const std::string plain = run(Start{{"tokenize"}, curly + "\n", {}, 0}).out;
  const std::string fixed = run(Start{{"tokenize", "--cleaning", "ftfy"}, curly + "\n", {}, 0}).out;
  CHECK(plain != fixed);
  CHECK(fixed == run(Start{{"tokenize"}, "it's\n", {}, 0}).out);
  CHECK(run(Start{{"tokenize", "--model", "ViT-B-32"}, curly + "\n", {}, 0}).out == fixed);  // a model: as open_clip

  // The path of a folder says nothing of the vocabulary in it.
  std::filesystem::create_directory(folder / "my-cased-run");
  write_text(folder / "my-cased-run/vocab.txt", "[UNK]\n[CLS]\n[SEP]\ncat\nCAT\n");
  CHECK(run(Start{{"tokenize", "--model", folder / "my-cased-run"}, "CAT\n", {}, 0}).out == "[1,3,2]\n");

  std::string lines;
  for (int i = 0; i < 50; ++i) lines += "a photo of a cat\nthe cats sat\n";
  write_text(folder / "corpus.txt", lines);
  const Json json = json_of({"tokenize", "--train", folder / "corpus.txt", "--vocab-size", "524", "--output", folder / "made", "--json"});
  CHECK(json["vocab_size"] == 524);
  CHECK(json["merges"] == 10);
  CHECK(lines_of(folder / "made/merges.txt").size() == 11);
  const Json ids = Json::parse(run(Start{{"tokenize", "--model", folder / "made"}, "a cat\n", {}, 0}).out);
  CHECK(ids.front() == 522);
  CHECK(ids.back() == 523);
  CHECK(ids.size() < 7);
  // It goes along wherever the model goes: without it the first merges of CLIP's vocabulary would be taken.
  Json config = Json::parse(toy_vit_json());
  config["text_cfg"]["vocab_size"] = 524;
  write_text(folder / "made/model.json", config.dump());
  json_of({"train", "--train-data", trained_model().data, "--val-data", trained_model().data, "--model", folder / "made/model.json",
           "--save-best", "clip_val_loss", "--batch-size", "8", "--epochs", "2", "--logs", folder / "logs", "--name", "own", "--json"});
  for (const char* to : {"openai", "open_clip", "hf"}) {
    const Json converted = json_of({"convert", folder / "logs/own/model", "--to", to, "--output", folder / to, "--json"});
    CHECK(converted["files"].contains(folder / (std::string(to) + "/merges.txt")));
  }
  for (const char* model : {"logs/own/model", "logs/own/best", "logs/own/checkpoints/step_6", "openai", "open_clip", "hf"}) {
    INFO(model);
    CHECK(Json::parse(run(Start{{"tokenize", "--model", folder / model}, "a cat\n", {}, 0}).out) == ids);
  }
  const Outcome none = run({"tokenize", "--train", folder / "corpus.txt"});
  CHECK(none.status == 2);
  CHECK_THAT(none.err, Contains("--train needs --output"));
  for (const Words& words : {Words{"--output", folder / "made"}, Words{"--vocab-size", "600"},
                             Words{"--train", folder / "corpus.txt", "--output", folder / "none", "--model", folder / "made"}}) {
    Words all{"tokenize"};
    all.insert(all.end(), words.begin(), words.end());
    const Outcome unused = run(all);
    INFO(unused.err);
    CHECK(unused.status == 2);
    CHECK_THAT(unused.err, Contains("error: ") && Contains("--train"));
  }
  CHECK_FALSE(fs::exists(folder / "none"));
  write_text(folder / "blank.txt", " \n\n");
  const Outcome blank = run({"tokenize", "--train", folder / "blank.txt", "--output", folder / "blank"});
  CHECK(blank.status == 1);
  CHECK_THAT(blank.err, Contains("error: the file has no words; --train " + (folder / "blank.txt") + "; give captions, one a line"));
  CHECK_FALSE(fs::exists(folder / "blank"));

  // As in other lists: not UTF-8 is refused, a byte order mark and carriage returns are no part of a line.
  write_text(folder / "latin.txt", "a cat\ncaf\xE9\n");
  const Outcome latin = run({"tokenize", "--train", folder / "latin.txt", "--output", folder / "latin"});
  CHECK(latin.status == 1);
  CHECK_THAT(latin.err, Contains((folder / "latin.txt") + ", line 2 is not UTF-8; byte 4 is 0xE9") && Contains("iconv -f latin1"));
  CHECK_FALSE(fs::exists(folder / "latin"));
  std::string windows = "\xEF\xBB\xBF";
  for (const std::string& line : lines_of(folder / "corpus.txt")) windows += line + "\r\n";
  write_text(folder / "windows.txt", windows);
  json_of({"tokenize", "--train", folder / "windows.txt", "--vocab-size", "524", "--cleaning", "none", "--output", folder / "w", "--json"});
  CHECK(read_file(folder / "w/merges.txt") == read_file(folder / "made/merges.txt"));
}

}  // namespace
}  // namespace twinlens::test
