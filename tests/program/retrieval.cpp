// Retrieval where a picture has several captions: `eval`, and the evaluations of `train`.

#include <catch2/catch.hpp>
#include <filesystem>
#include <nlohmann/json.hpp>

#include "tests/program/program.h"
#include "tests/support/temporary_folder.h"
#include "tests/support/toy_data.h"

#include "twinlens/core/file.h"

namespace twinlens::test {
namespace {

using nlohmann::json;

constexpr int kPictures = 8, kCaptions = 3;

// A table of every picture with every caption of its own: picture by picture, or caption by caption.
std::string table(bool by_picture) {
  std::string out = "filepath,title\n";
  const int outer = by_picture ? kPictures : kCaptions, inner = by_picture ? kCaptions : kPictures;
  for (int a = 0; a < outer; ++a) {
    for (int b = 0; b < inner; ++b) {
      const int i = by_picture ? a : b, caption = by_picture ? b : a;
      out += picture(i) + ",view " + std::to_string(caption) + " of thing " + std::to_string(i) + "\n";
    }
  }
  return out;
}

TEST_CASE("a picture's captions belong to it in whatever order a table has its rows", "[program]") {
  const TemporaryFolder folder;
  write_text(folder / "sorted.csv", table(true));
  write_text(folder / "mixed.csv", table(false));
  write_text(folder / "twice.csv", table(false) + table(true).substr(std::string("filepath,title\n").size()));
  const auto eval = [&](const std::string& name) {
    return json_of({"eval", "--model", trained_model().model, "--data", folder / name, "--batch-size", "5", "--json"});
  };
  const json sorted = eval("sorted.csv");
  CHECK(sorted["num_images"] == kPictures);
  CHECK(sorted["num_texts"] == kPictures * kCaptions);
  CHECK(eval("mixed.csv") == sorted);
  CHECK(eval("twice.csv") == sorted);
}

TEST_CASE("training's last evaluation has the figures of eval, captions of one picture included", "[program]") {
  const TemporaryFolder folder;
  write_text(folder / "mixed.csv", table(false));
  const json trained = json_of({"train", "--train-data", trained_model().data, "--val-data", folder / "mixed.csv", "--model",
                                trained_model().folder + "/vit.json", "--batch-size", "8", "--epochs", "1", "--logs", folder.path(),
                                "--name", "run", "--json"});
  const json again = json_of({"eval", "--model", folder / "run/model", "--data", folder / "mixed.csv", "--batch-size", "8", "--json"});
  const json line = last_metrics(folder / "run");
  REQUIRE(line.contains("clip_val_loss"));
  for (const auto& [name, value] : again.items()) {
    if (!line.contains(name)) continue;
    INFO(name);
    CHECK(line[name].get<double>() == Approx(value.get<double>()).epsilon(1e-12));
  }
  CHECK(line["num_images"] == kPictures);
}

}  // namespace
}  // namespace twinlens::test
