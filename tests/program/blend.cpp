// `twinlens blend`: weights between two models.

#include <catch2/catch.hpp>
#include <cmath>
#include <filesystem>

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

std::string weights_in(const std::string& folder) { return folder + "/open_clip_model.safetensors"; }

TEST_CASE("a blend of two models has their weights at its ends and its share of both between them", "[program]") {
  const TemporaryFolder folder;
  const std::string before = trained_model().model, after = folder / "logs/tuned/model";
  REQUIRE(run(Words{"train", "--train-data", trained_model().data, "--pretrained", before, "--logs", folder / "logs", "--name", "tuned",
                    "--epochs", "2", "--batch-size", "8", "--lr", "1e-3"})
              .status == 0);
  const auto blend = [&](const std::string& alpha, const std::string& name) {
    const nlohmann::json out = json_of({"blend", before, after, "--alpha", alpha, "--output", folder / name, "--json"});
    CHECK(out["files"].contains(weights_in(folder / name)));
    return read_safetensors(weights_in(folder / name));
  };
  const auto from = read_safetensors(weights_in(before)), to = read_safetensors(weights_in(after));
  const auto start = blend("0", "start"), end = blend("1", "end"), middle = blend("0.25", "middle");
  REQUIRE(middle.size() == from.size());
  bool moved = false;
  for (const auto& [name, tensor] : from) {
    INFO(name);
    const std::vector<float> a = tensor.to_vector(), b = to.at(name).to_vector(), m = middle.at(name).to_vector();
    CHECK(start.at(name).to_vector() == a);
    CHECK(end.at(name).to_vector() == b);
    moved = moved || a != b;
    double worst = 0.0;
    for (std::size_t i = 0; i < m.size(); ++i) {
      const double exact = 0.75 * static_cast<double>(a[i]) + 0.25 * static_cast<double>(b[i]);
      worst = std::max(worst, std::abs(m[i] - exact) / std::max(std::abs(exact), std::abs(0.25 * static_cast<double>(b[i])) + 1e-30));
    }
    CHECK(worst <= 0x1p-22);
  }
  CHECK(moved);
  // It is a model like any other, and is not written over one.
  CHECK(json_of({"eval", "--model", folder / "middle", "--data", trained_model().data, "--json"})["num_images"].get<int>() > 0);
  const Outcome again = run(Words{"blend", before, after, "--output", after});
  CHECK(again.status == 1);
  CHECK_THAT(again.err, Contains("the folder holds a model already; --output " + after));
  const Outcome beyond = run(Words{"blend", before, after, "--alpha", "1.5", "--output", folder / "beyond"});
  CHECK(beyond.status == 2);
  CHECK_FALSE(fs::exists(folder / "beyond"));
}

TEST_CASE("models of two architectures are not blended", "[program]") {
  const TemporaryFolder folder;
  write_text(folder / "resnet.json", toy_resnet_json());
  REQUIRE(run(Words{"train", "--train-data", trained_model().data, "--model", folder / "resnet.json", "--logs", folder / "logs", "--name",
                    "other", "--epochs", "1", "--batch-size", "8"})
              .status == 0);
  const Outcome o = run(Words{"blend", trained_model().model, folder / "logs/other/model", "--output", folder / "blend"});
  INFO(o.err);
  CHECK(o.status == 1);
  CHECK_THAT(o.err, Contains("weights do not fit the model; missing: visual.attnpool."));
  CHECK_FALSE(fs::exists(folder / "blend"));
}

}  // namespace
}  // namespace twinlens::test
