// Names, shapes and initial values of a ViT CLIP and a ResNet CLIP against open_clip's.

#include <algorithm>
#include <catch2/catch.hpp>
#include <cmath>
#include <set>

#include "tests/support/golden.h"
#include "tests/support/temporary_folder.h"

#include "twinlens/clip/model.h"
#include "twinlens/clip/pretrained.h"

namespace twinlens::test {
namespace {

struct Statistics {
  double mean = 0.0, rms = 0.0, largest = 0.0;
};

Statistics statistics_of(const std::vector<float>& values) {
  Statistics s;
  for (const float v : values) {
    const double x = static_cast<double>(v);
    s.mean += x;
    s.rms += x * x;
    s.largest = std::max(s.largest, std::abs(x));
  }
  const auto n = static_cast<double>(values.size());
  return {s.mean / n, std::sqrt(s.rms / n), s.largest};
}

// Five standard deviations of what a draw of n elements may show; the edges of a uniform one must be neared and not crossed.
void check_draw(const std::vector<float>& values, const nlohmann::json& want) {
  if (want["rule"] == "constant") {
    for (const float v : values) REQUIRE(static_cast<double>(v) == Approx(want["value"].get<double>()).margin(0.0).epsilon(1e-7));
    return;
  }
  const Statistics s = statistics_of(values);
  const double n = static_cast<double>(values.size()), deviation = want["std"].get<double>();
  CHECK(std::abs(s.rms / deviation - 1.0) < 5.0 / std::sqrt(2.0 * n));
  CHECK(std::abs(s.mean) < 5.0 * deviation / std::sqrt(n));
  if (want["rule"] == "uniform") {
    const double bound = want["bound"].get<double>();
    CHECK(s.largest <= bound * (1.0 + 1e-6));
    CHECK(s.largest >= bound * (1.0 - 12.0 / n));
  } else {
    CHECK(s.largest > 1.8 * deviation);  // not uniform of the same spread
  }
}

TEST_CASE("initialisation is open_clip's, parameter by parameter", "[golden]") {
  const nlohmann::json all = golden_json("init_stats");
  for (const char* which : {"vit", "resnet"}) {
    const nlohmann::json& about = all[which];
    Clip model(parse_model_config(about["model"].dump(), "init_stats.json"), 20);
    const Collector own = collect(model);
    CHECK(own.parameters.size() == about["parameters"].size());
    for (const NamedParameter& p : own.parameters) {
      INFO(which << " " << p.name);
      REQUIRE(about["parameters"].contains(p.name));
      const nlohmann::json& want = about["parameters"][p.name];
      const Shape& shape = p.parameter->value.shape();
      CHECK(std::vector<std::int64_t>(shape.begin(), shape.end()) == want["shape"].get<std::vector<std::int64_t>>());
      check_draw(p.parameter->value.to_vector(), want);
    }
  }
}

TEST_CASE("a seed gives its weights, another one others") {
  const ModelConfig config = parse_model_config(golden_json("train20")["model"].dump(), "train20.json");
  Clip a(config, 1), again(config, 1), b(config, 2);
  CHECK(a.text.token_embedding.weight.value.to_vector() == again.text.token_embedding.weight.value.to_vector());
  CHECK(a.text.token_embedding.weight.value.to_vector() != b.text.token_embedding.weight.value.to_vector());
}

bool is_counter(const std::string& name) { return name.find("num_batches_tracked") != std::string::npos; }

std::set<std::string> names_in(const std::string& file) {
  std::set<std::string> names;
  const SafetensorsFile weights(std::string(TWINLENS_SOURCE_DIR) + "/tests/golden/data/" + file + ".safetensors");
  for (const SafetensorsEntry& entry : weights.entries()) {
    if (entry.name.rfind("init.", 0) == 0 && !is_counter(entry.name)) names.insert(entry.name.substr(5));
  }
  return names;
}

// All but PyTorch's batch counters, which play no part in what a model computes.
TEST_CASE("the state dict has open_clip's names", "[golden]") {
  for (const char* file : {"train20", "rn_step"}) {
    INFO(file);
    Clip model(parse_model_config(golden_json(file)["model"].dump(), file), 0);
    std::set<std::string> own;
    for (const auto& [name, tensor] : state_dict(collect(model))) own.insert(name);
    CHECK(own == names_in(file));
  }
}

TEST_CASE("a ResNet checkpoint as open_clip saves it, batch counters included, loads") {
  const TemporaryFolder folder;
  const Golden golden("rn_step");
  Clip model(parse_model_config(golden_json("rn_step")["model"].dump(), "rn_step.json"), 0);
  save_model(model, folder.path());
  StateDict weights;
  for (const auto& [name, tensor] : state_dict(collect(model))) {
    weights.emplace(name, golden.tensor("init." + name));
    if (name.size() > 12 && name.substr(name.size() - 12) == "running_mean") {
      const std::string counter = name.substr(0, name.size() - 12) + "num_batches_tracked";
      weights.emplace(counter, golden.tensor("init." + counter));
    }
  }
  write_safetensors(folder / "open_clip_model.safetensors", weights);
  const auto loaded = load_model(folder.path());
  for (const auto& [name, tensor] : state_dict(collect(*loaded))) {
    INFO(name);
    CHECK(tensor.to_vector() == golden.tensor("init." + name).to_vector());
  }
}

}  // namespace
}  // namespace twinlens::test
