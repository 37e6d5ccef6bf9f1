// Every subcommand on a small trained model: what it prints, what it writes.

#include <catch2/catch.hpp>
#include <cmath>
#include <filesystem>
#include <nlohmann/json.hpp>
#include <set>
#include <sstream>

#include "tests/program/program.h"
#include "tests/support/archive_files.h"
#include "tests/support/temporary_folder.h"
#include "tests/support/toy_data.h"

#include "twinlens/core/file.h"
#include "twinlens/core/safetensors.h"

namespace twinlens::test {
namespace {

namespace fs = std::filesystem;
using Catch::Contains;
using Json = nlohmann::json;
using Words = std::vector<std::string>;

std::set<std::string> keys_of(const Json& object) {
  std::set<std::string> keys;
  for (const auto& [name, value] : object.items()) keys.insert(name);
  return keys;
}

void check_has(const Json& object, const std::vector<const char*>& keys) {
  for (const char* key : keys) {
    INFO(key << " in " << object.dump());
    CHECK(object.contains(key));
  }
}

double norm(const float* row, std::int64_t n) {
  double total = 0.0;
  for (std::int64_t i = 0; i < n; ++i) total += static_cast<double>(row[i]) * static_cast<double>(row[i]);
  return std::sqrt(total);
}

// Colours as classes: folders of pictures that differ only a little within a class.
void write_class_folders(const std::string& folder, int per_class) {
  for (const char* colour : {"red", "green", "blue"}) {
    fs::create_directories(folder + "/" + colour);
    for (int i = 0; i < per_class; ++i) {
      std::vector<std::uint8_t> rgb;
      for (int p = 0; p < 40 * 40 * 3; ++p) {
        const bool on = (p % 3 == 0) == (colour[0] == 'r') && (p % 3 == 1) == (colour[0] == 'g');
        rgb.push_back(static_cast<std::uint8_t>((on ? 200 : 40) + (p * 7 + i * 13) % 23));
      }
      write_text(folder + "/" + colour + "/" + std::to_string(i) + ".png", encode_png(rgb, 40, 40));
    }
  }
}

TEST_CASE("--help of every subcommand is exit status 0 and shows an example", "[program]") {
  CHECK(run({"--help"}).status == 0);
  for (const char* name : {"train", "eval", "embed", "classify", "rank", "index", "search", "preprocess", "tokenize", "info"}) {
    const Outcome o = run({name, "--help"});
    INFO(name);
    CHECK(o.status == 0);
    CHECK(o.err.empty());
    CHECK_THAT(o.out, Contains("Example") && Contains(std::string("twinlens ") + name));
  }
}

TEST_CASE("training leaves what the contract says", "[program]") {
  const fs::path log = trained_model().log;
  for (const char* name : {"params.json", "out.log", "metrics.jsonl", "checkpoints/latest", "checkpoints/step_6/state.json", "report.html",
                           "model/open_clip_config.json", "model/open_clip_model.safetensors"}) {
    INFO(name);
    CHECK(fs::file_size(log / name) > 0);
  }
  CHECK_FALSE(fs::exists(log / "skipped.tsv"));
  std::istringstream lines(read_file((log / "metrics.jsonl").string()));
  std::string line;
  Json step, evaluation;
  while (std::getline(lines, line)) {
    const Json json = Json::parse(line);
    (json.contains("loss") ? step : evaluation) = json;
  }
  check_has(step, {"step", "epoch", "samples", "loss", "lr", "logit_scale", "samples_per_second", "data_time", "batch_time", "grad_norm"});
  CHECK(step["step"] == 6);
  CHECK(step["samples"] == 48);
  check_has(evaluation, {"step", "clip_val_loss", "image_to_text_R@1", "image_to_text_R@5", "image_to_text_R@10", "text_to_image_R@1"});
  const Json again = json_of({"eval", "--model", trained_model().model, "--data", trained_model().data, "--json"});
  for (const char* name : {"clip_val_loss", "image_to_text_R@1", "text_to_image_mean_rank"}) {
    INFO(name);
    CHECK(again[name].get<double>() == Approx(evaluation[name].get<double>()).epsilon(1e-5));
  }
  const Json params = Json::parse(read_file((log / "params.json").string()));
  check_has(params, {"train-data", "batch-size", "lr", "wd", "seed", "memory-limit", "max-chunk", "csv-img-key"});
  CHECK(params["batch-size"] == 8);
}

TEST_CASE("train --json prints one document", "[program]") {
  const TemporaryFolder folder;
  const Json json = json_of({"train", "--train-data", trained_model().data, "--model", trained_model().folder + "/vit.json", "--batch-size",
                             "8", "--epochs", "1", "--logs", folder / "logs", "--name", "run", "--json"});
  CHECK(keys_of(json) == std::set<std::string>{"run_folder", "steps", "loss", "stopped_early"});
  CHECK(json["steps"] == 3);
  CHECK(json["stopped_early"] == false);
}

TEST_CASE("train --pretrained without --model trains the model that it is", "[program]") {
  const TemporaryFolder folder;
  json_of({"train", "--train-data", trained_model().data, "--pretrained", trained_model().model, "--batch-size", "8", "--epochs", "1",
           "--logs", folder / "logs", "--name", "run", "--json"});
  CHECK(json_of({"info", folder / "logs/run/model", "--json"})["model_cfg"] ==
        json_of({"info", trained_model().model, "--json"})["model_cfg"]);
}

TEST_CASE("embed writes unit rows, or the features as they are", "[program]") {
  const TemporaryFolder folder;
  const std::string& model = trained_model().model;
  write_text(folder / "texts.txt", "a red square\n\nthe sea\na red square\n");
  Words images{"embed", "--model",  model,      "--output", folder / "images", "--batch-size",
               "2",     "--images", picture(0), picture(1), picture(2)};
  CHECK(run(images).status == 0);
  const Json json = json_of({"embed", "--model", model, "--output", folder / "texts", "--texts", folder / "texts.txt", "--json"});
  CHECK(json["count"] == 3);
  CHECK(json["dim"] == 32);
  for (const char* name : {"images", "texts"}) {
    const Tensor rows = SafetensorsFile(folder / name).tensor("embeddings");
    REQUIRE(rows.dtype() == DType::f32);
    REQUIRE(rows.shape() == Shape{3, 32});
    for (int i = 0; i < 3; ++i) CHECK(norm(rows.data<float>() + i * 32, 32) == Approx(1.0).epsilon(1e-6));
  }
  const Tensor texts = SafetensorsFile(folder / "texts").tensor("embeddings");
  CHECK(texts.slice(0, 0, 1).to_vector() == texts.slice(0, 2, 3).to_vector());
  CHECK(texts.slice(0, 0, 1).to_vector() != texts.slice(0, 1, 2).to_vector());

  images[4] = folder / "raw";
  images.push_back("--no-normalize");
  CHECK(run(images).status == 0);
  const Tensor raw = SafetensorsFile(folder / "raw").tensor("embeddings");
  const Tensor unit = SafetensorsFile(folder / "images").tensor("embeddings");
  for (int i = 0; i < 3; ++i) {
    const double length = norm(raw.data<float>() + i * 32, 32);
    CHECK(std::abs(length - 1.0) > 1e-3);
    for (int k = 0; k < 32; ++k) CHECK(raw.data<float>()[i * 32 + k] / length == Approx(unit.data<float>()[i * 32 + k]).margin(1e-6));
  }
}

TEST_CASE("classify and rank order by score and agree with embed", "[program]") {
  const TemporaryFolder folder;
  const std::string& model = trained_model().model;
  write_text(folder / "classes.txt", "red\ngreen\nblue\nyellow\n");
  const Json classified = json_of({"classify", "--model", model, "--classes", folder / "classes.txt", "--templates", "simple", "--top", "4",
                                   picture(0), picture(3), "--json"});
  REQUIRE(keys_of(classified) == std::set<std::string>{"results"});
  REQUIRE(classified["results"].size() == 8);
  for (int image = 0; image < 2; ++image) {
    double total = 0.0, last = 2.0;
    std::set<std::string> labels;
    for (int k = 0; k < 4; ++k) {
      const Json& r = classified["results"][static_cast<std::size_t>(image * 4 + k)];
      CHECK(keys_of(r) == std::set<std::string>{"image", "label", "score", "probability"});
      CHECK(r["image"] == picture(image * 3));
      CHECK(r["score"].get<double>() <= last);
      last = r["score"];
      total += r["probability"].get<double>();
      labels.insert(r["label"]);
    }
    CHECK(total == Approx(1.0));
    CHECK(labels.size() == 4);
  }

  const Json ranked = json_of({"rank", "--model", model, "--text", "a red square", picture(0), picture(1), picture(2), "--json"});
  REQUIRE(ranked["results"].size() == 3);
  REQUIRE(run({"embed", "--model", model, "--output", folder / "i", "--images", picture(0), picture(1), picture(2)}).status == 0);
  write_text(folder / "t.txt", "a red square\n");
  REQUIRE(run({"embed", "--model", model, "--output", folder / "t", "--texts", folder / "t.txt"}).status == 0);
  const std::vector<float> images = SafetensorsFile(folder / "i").tensor("embeddings").to_vector();
  const std::vector<float> text = SafetensorsFile(folder / "t").tensor("embeddings").to_vector();
  double last = 2.0;
  for (const Json& r : ranked["results"]) {
    CHECK(keys_of(r) == std::set<std::string>{"image", "text", "score", "probability"});
    CHECK(r["text"] == "a red square");
    CHECK(r["score"].get<double>() <= last);
    last = r["score"];
    for (int i = 0; i < 3; ++i) {
      if (r["image"] != picture(i)) continue;
      double dot = 0.0;
      for (std::size_t k = 0; k < 32; ++k)
        dot += static_cast<double>(images[static_cast<std::size_t>(i) * 32 + k]) * static_cast<double>(text[k]);
      CHECK(r["score"].get<double>() == Approx(dot).margin(1e-6));
    }
  }
}

TEST_CASE("tokenize prints ids with start and end, cut to the context length", "[program]") {
  const Outcome o = run(Start{{"tokenize"}, "a photo of a cat\n\n", {}, 0});
  CHECK(o.status == 0);
  CHECK(o.out == "[49406,320,1125,539,320,2368,49407]\n[49406,49407]\n");
  CHECK(run(Start{{"tokenize", "--context-length", "4"}, "a photo of a cat\n", {}, 0}).out == "[49406,320,1125,49407]\n");
  CHECK(run(Start{{"tokenize", "--json"}, "a\na\n", {}, 0}).out == "[[49406,320,49407],[49406,320,49407]]\n");
  // The model has 24 positions and a vocabulary of 1000.
  const Outcome small = run(Start{{"tokenize", "--model", trained_model().model, "--json"}, std::string(200, 'x') + "\n", {}, 0});
  const Json ids = Json::parse(small.out);
  CHECK(ids[0].size() == 24);
  CHECK(ids[0].front() == 998);
  CHECK(ids[0].back() == 999);
}

TEST_CASE("info of a name, a config and a folder", "[program]") {
  const Json named = json_of({"info", "ViT-B-32", "--json"});
  CHECK(named["parameters"] == 151277313);
  CHECK_FALSE(named.contains("weights"));
  const Json folder = json_of({"info", trained_model().model, "--json"});
  check_has(folder, {"model_cfg", "preprocess_cfg", "parameters", "forward_gflops", "layout", "weights", "instruction_set"});
  CHECK(folder["layout"] == "open_clip");
  const std::string weights = folder["weights"];
  const TemporaryFolder sums;
  REQUIRE(std::system(("sha256sum '" + weights + "' >" + (sums / "sum")).c_str()) == 0);
  CHECK(read_file(sums / "sum").substr(0, 64) == folder["sha256"]);
  CHECK(json_of({"info", trained_model().folder + "/vit.json", "--json"})["parameters"] == folder["parameters"]);
  CHECK_THAT(run({"info", trained_model().model}).out, Contains("parameters") && Contains("GFLOP"));
}

TEST_CASE("eval --task retrieval, apart by words seen in training", "[program]") {
  const TemporaryFolder folder;
  const Words base{"eval", "--model", trained_model().model, "--data", trained_model().data, "--json"};
  const Json all = json_of(base);
  check_has(all, {"image_to_text_R@1", "image_to_text_R@5", "image_to_text_R@10", "text_to_image_R@1", "text_to_image_R@5",
                  "text_to_image_R@10", "num_images", "num_texts", "chance"});
  CHECK(all["num_images"] == 24);
  CHECK((all["num_images"].is_number_integer() && all["num_texts"].is_number_integer()));
  CHECK(all["num_texts"] == 24);
  CHECK(all["chance"].get<double>() == Approx(1.0 / 24));

  // Each caption has a number of its own: 10 of them are in the file, other words do not count, nor does their order or case.
  std::string lines = "RED green blue yellow black white square disc stripe on a number\n";
  for (int i = 0; i < 10; ++i) lines += std::to_string(i) + "\n";
  write_text(folder / "seen.txt", lines);
  Words apart = base;
  apart.insert(apart.end(), {"--seen-words", folder / "seen.txt"});
  const Json parts = json_of(apart);
  CHECK(parts["num_texts_seen"] == 10);
  CHECK(parts["num_texts_unseen"] == 14);
  CHECK(parts["num_images_seen"] == 10);
  for (const char* name : {"image_to_text_R@1", "image_to_text_R@5", "text_to_image_R@10", "text_to_image_mean_rank"}) {
    INFO(name);
    CHECK(parts[name] == all[name]);
    const double seen = parts[std::string(name) + "_seen"], unseen = parts[std::string(name) + "_unseen"];
    CHECK((10 * seen + 14 * unseen) / 24 == Approx(all[name].get<double>()));
  }
  // A dataset as the source of words; a part without queries is null.
  apart.back() = trained_model().data;
  const Json same = json_of(apart);
  CHECK(same["num_texts_seen"] == 24);
  CHECK(same["image_to_text_R@1_seen"] == all["image_to_text_R@1"]);
  CHECK(same["image_to_text_R@1_unseen"].is_null());
}

TEST_CASE("eval reads shards by the keys that train has", "[program]") {
  const TemporaryFolder folder;
  Members members;
  for (int i = 0; i < 6; ++i) {
    const std::string key = std::to_string(i), caption = "caption " + key;
    members.emplace_back(key + ".jpg", "this is no picture");
    members.emplace_back(key + ".json", R"({"caption": ")" + caption + R"(", "more": [")" + caption + R"( again"]})");
    members.emplace_back(key + ".view.png", read_file(picture(i)));
    members.emplace_back(key + ".txt", "the same for all");
  }
  write_tar(folder / "a.tar", members);
  const Words plain{"eval", "--model", trained_model().model, "--data", folder / "a.tar", "--json", "--image-key", "view.png"};
  CHECK(json_of(plain)["num_texts"] == 1);
  Words json = plain;
  json.insert(json.end(), {"--json-text-key", "caption;more"});
  const Json out = json_of(json);
  CHECK(out["num_images"] == 6);
  CHECK(out["num_texts"] == 12);
}

TEST_CASE("eval --task zeroshot and linear-probe on class folders", "[program]") {
  const TemporaryFolder folder;
  write_class_folders(folder / "data", 10);
  const std::string& model = trained_model().model;
  write_text(folder / "seen.txt", "a photo of a red thing\n");
  const Json zeroshot =
      json_of({"eval", "--model", model, "--data", folder / "data", "--task", "zeroshot", "--seen-words", folder / "seen.txt", "--json"});
  check_has(zeroshot, {"zeroshot_top1", "zeroshot_top5", "num_images", "num_texts", "chance"});
  CHECK(zeroshot["num_images"] == 30);
  CHECK(zeroshot["num_texts"] == 3);
  CHECK(zeroshot["zeroshot_top5"] == 1.0);
  CHECK(zeroshot["num_images_seen"] == 10);
  CHECK(zeroshot["num_texts_seen"] == 1);
  CHECK(zeroshot["num_texts_unseen"] == 2);
  CHECK((zeroshot["zeroshot_top1_seen"].get<double>() + 2 * zeroshot["zeroshot_top1_unseen"].get<double>()) / 3 ==
        Approx(zeroshot["zeroshot_top1"].get<double>()));

  write_text(folder / "classes.txt", "red\nblue\ngreen\n");
  CHECK(json_of({"eval", "--model", model, "--data", folder / "data", "--task", "zeroshot", "--classes", folder / "classes.txt",
                 "--json"})["zeroshot_top1"] == zeroshot["zeroshot_top1"]);

  // A folder's _ is a space, as in training; --classes may have either.
  fs::create_directories(folder / "named");
  for (const char* name : {"red", "green", "blue"})
    fs::copy(folder / (std::string("data/") + name), folder / (std::string("named/a_") + name), fs::copy_options::recursive);
  for (const char* classes : {"a red\na blue\na green\n", "a_red\na_blue\na_green\n"}) {
    write_text(folder / "named.txt", classes);
    CHECK(json_of({"eval", "--model", model, "--data", folder / "named", "--task", "zeroshot", "--classes", folder / "named.txt",
                   "--json"})["num_texts"] == 3);
  }
  const Outcome one = run({"eval", "--model", model, "--data", folder / "named", "--task", "zeroshot", "--where", "class=a_red"});
  CHECK(one.status == 1);
  CHECK_THAT(one.err, Contains("there is one, 'a red'"));

  const Json probe = json_of({"eval", "--model", model, "--data", folder / "data", "--task", "linear-probe", "--json"});
  CHECK(probe["num_train_images"] == 24);
  CHECK(probe["num_images"] == 6);
  CHECK(probe["linear_probe_converged"] == true);
  CHECK(probe["linear_probe_top1"] == 1.0);  // three colours: any features tell them apart
  CHECK(probe["linear_probe_top5"] == 1.0);

  // Pictures of their own to fit on; with labels that say nothing, the probe is at chance.
  write_class_folders(folder / "train", 4);
  const Json given =
      json_of({"eval", "--model", model, "--data", folder / "data", "--train-data", folder / "train", "--task", "linear-probe", "--json"});
  CHECK(given["num_train_images"] == 12);
  CHECK(given["num_images"] == 30);
  CHECK(given["linear_probe_top1"] == 1.0);
  const Json near = json_of(
      {"eval", "--model", model, "--data", folder / "data", "--train-data", folder / "train", "--task", "knn", "--knn-k", "3", "--json"});
  CHECK(near["knn_top1"] == 1.0);
  CHECK(near["num_train_images"] == 12);
  fs::rename(folder / "train/red", folder / "train/old");
  fs::rename(folder / "train/green", folder / "train/red");
  fs::rename(folder / "train/old", folder / "train/green");
  const Json swapped =
      json_of({"eval", "--model", model, "--data", folder / "data", "--train-data", folder / "train", "--task", "linear-probe", "--json"});
  CHECK(swapped["linear_probe_top1"].get<double>() == Approx(1.0 / 3));
}

TEST_CASE("eval --task zeroshot on shards as clip_benchmark has them: labels that count the lines of a file of classes", "[program]") {
  const TemporaryFolder folder;
  write_class_folders(folder / "data", 5);
  const std::vector<std::string> lines{"green", "red", "green", "blue"};  // one stands twice, as in ImageNet's list
  Members members;
  for (std::size_t line : {1, 2, 3}) {
    for (int i = 0; i < 5; ++i) {
      const std::string key = "s" + std::to_string(line) + std::to_string(i);
      members.emplace_back(key + ".png", read_file(folder / "data/" + lines[line] + "/" + std::to_string(i) + ".png"));
      members.emplace_back(key + ".cls", std::to_string(line) + "\n");
    }
  }
  write_tar(folder / "0.tar", members);
  write_text(folder / "classnames.txt", "green\nred\ngreen\nblue\n");
  write_text(folder / "templates.txt", "a photo of a {c}.\n");
  const auto eval = [&](const std::string& data, const std::string& task, const Words& more) {
    Words words{"eval", "--model", trained_model().model, "--task", task, "--data", data, "--json"};
    words.insert(words.end(), more.begin(), more.end());
    return words;
  };
  const Words numbers{"--text-key", "cls", "--label", "cls", "--classes", folder / "classnames.txt"};
  Words with_templates = numbers;
  with_templates.insert(with_templates.end(), {"--templates", folder / "templates.txt"});
  const Json names = json_of(eval(folder / "data", "zeroshot", {})), counted = json_of(eval(folder / "0.tar", "zeroshot", with_templates));
  CHECK(counted["num_images"] == 15);
  CHECK(counted["num_texts"] == 3);
  CHECK(counted["zeroshot_top1"] == names["zeroshot_top1"]);
  CHECK(counted["zeroshot_mean_per_class_recall"] == names["zeroshot_mean_per_class_recall"]);
  CHECK(json_of(eval(folder / "0.tar", "linear-probe", numbers))["linear_probe_top1"] == 1.0);
  write_text(folder / "blank.txt", "green\nred\n\nblue\n");  // a blank line counts, and is no class
  CHECK_THAT(run(eval(folder / "0.tar", "zeroshot", {"--text-key", "cls", "--label", "cls", "--classes", folder / "blank.txt"})).err,
             Contains("label '2' is not among the classes"));

  // Who does not know these flags is told.
  const Outcome untold = run(eval(folder / "0.tar", "zeroshot", {}));
  CHECK(untold.status == 1);
  CHECK_THAT(untold.err, Contains("no caption (txt) among cls and png") && Contains("--text-key cls --label cls --classes classnames.txt"));
  // Before anything is embedded: a picture that cannot be read has not been seen yet.
  Members with_broken{{"s00.png", "no picture"}, {"s00.cls", "1"}};
  with_broken.insert(with_broken.end(), members.begin(), members.end());
  write_tar(folder / "broken.tar", with_broken);
  const Outcome half_told = run(eval(folder / "broken.tar", "zeroshot", {"--text-key", "cls"}));
  CHECK(half_told.status == 1);
  CHECK_THAT(half_told.err,
             Contains("has no label 'class'; --label; name a metadata field, or the --text-key: cls") && !Contains("skipped"));
  CHECK_THAT(run(eval(folder / "broken.tar", "linear-probe", numbers)).err, Contains("skipped broken.tar:s00"));

  // A number behind the last line, and names beside numbers.
  members.emplace_back("s40.png", members[0].second);
  for (const char* label : {"4", "red"}) {
    Members wrong = members;
    wrong.emplace_back("s40.cls", label);
    write_tar(folder / "1.tar", wrong);
    const Outcome o = run(eval(folder / "1.tar", "zeroshot", numbers));
    CHECK(o.status == 1);
    CHECK_THAT(o.err, Contains(std::string("label '") + (*label == '4' ? label : "1") + "' is not among the classes; ") &&
                          Contains("classnames.txt; add it, or let every label count the file's lines"));
  }
}

TEST_CASE("one class alone is refused, and one that stands twice counts once", "[program]") {
  const TemporaryFolder folder;
  const std::string& model = trained_model().model;
  write_class_folders(folder / "data", 5);
  fs::create_directories(folder / "one");
  fs::copy(folder / "data/red", folder / "one/red");
  write_text(folder / "one.txt", "red\n");
  write_text(folder / "once.txt", "blue\ngreen\nred\n");
  write_text(folder / "twice.txt", "blue\nblue\ngreen\nred\nblue\n");
  const auto counts_once = [&](const auto& words_with) {
    const Outcome once = run(words_with(folder / "once.txt")), twice = run(words_with(folder / "twice.txt"));
    INFO(twice.err);
    REQUIRE(once.status == 0);
    CHECK(twice.out == once.out);
    CHECK_THAT(twice.err, Contains("note: class 'blue' stands more than once and counts once; " + (folder / "twice.txt")));
  };
  const auto refused = [&](const Words& words, const std::string& message) {
    const Outcome o = run(words);
    INFO(o.err);
    CHECK(o.status == 1);
    CHECK(o.out.empty());
    CHECK_THAT(o.err, Contains("error: " + message));
  };
  for (const std::string task : {"zeroshot", "knn", "linear-probe"}) {
    const auto eval = [&](const std::string& data, const Words& more) {
      Words words{"eval", "--model", model, "--task", task, "--data", folder / data};
      words.insert(words.end(), more.begin(), more.end());
      return words;
    };
    const std::string one = task + ": at least two classes are needed, and there is one, 'red'; ";
    refused(eval("one", {}), one + "--data " + (folder / "one") + "; ");
    refused(eval("data", {"--where", "class=red"}), one + "--data ");
    refused(eval("data", {"--classes", folder / "one.txt"}), one + "--classes " + (folder / "one.txt") + "; ");
    counts_once([&](const std::string& classes) { return eval("data", {"--classes", classes, "--json"}); });
    // Pictures of one class, measured against three, are a measurement.
    write_text(folder / "three.txt", "blue\ngreen\nred\n");
    if (task == "zeroshot") {
      CHECK(run(eval("one", {"--classes", folder / "three.txt"})).status == 0);
      continue;
    }
    refused(eval("data", {"--train-data", folder / "one", "--classes", folder / "three.txt"}), one + "--train-data " + (folder / "one"));
    CHECK(run(eval("one", {"--train-data", folder / "data"})).status == 0);
  }
  counts_once([&](const std::string& classes) { return Words{"classify", "--model", model, "--classes", classes, "--json", picture(0)}; });
}

}  // namespace
}  // namespace twinlens::test
