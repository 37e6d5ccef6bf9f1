// Metrics against CLIP_benchmark, the linear probe and nearest neighbours against scikit-learn (tests/golden/make_metrics.py).

#include <catch2/catch.hpp>
#include <cmath>
#include <nlohmann/json.hpp>

#include "twinlens/clip/evaluation.h"
#include "twinlens/clip/knn.h"
#include "twinlens/clip/linear_probe.h"
#include "twinlens/core/file.h"
#include "twinlens/core/safetensors.h"

namespace twinlens::test {
namespace {

const std::string kData = std::string(TWINLENS_SOURCE_DIR) + "/tests/golden/data/";
constexpr double kBound = 1e-6;

const SafetensorsFile& file() {
  static const SafetensorsFile f(kData + "metrics.safetensors");
  return f;
}
nlohmann::json truth(const char* part) { return nlohmann::json::parse(read_file(kData + "metrics.json"))[part]; }

std::vector<std::int64_t> integers(const char* name) {
  const Tensor x = file().tensor(name);
  return {x.data<std::int64_t>(), x.data<std::int64_t>() + x.count()};
}
std::vector<std::int64_t> part(const std::vector<std::int64_t>& all, std::size_t begin, std::size_t end) {
  return {all.begin() + static_cast<std::ptrdiff_t>(begin), all.begin() + static_cast<std::ptrdiff_t>(end)};
}

TEST_CASE("retrieval with several captions a picture: CLIP_benchmark's rates", "[golden]") {
  const Tensor images = file().tensor("retrieval.images"), texts = file().tensor("retrieval.texts");
  std::vector<std::vector<std::int64_t>> texts_of(static_cast<std::size_t>(images.size(0)));
  const std::vector<std::int64_t> image_of = integers("retrieval.image_of");
  for (std::size_t t = 0; t < image_of.size(); ++t) texts_of[static_cast<std::size_t>(image_of[t])].push_back(static_cast<std::int64_t>(t));
  const auto report = retrieval_report(retrieval_metrics(images, texts, texts_of));
  int seen = 0;
  const nlohmann::json expected = truth("retrieval");
  for (const auto& [name, value] : expected.items()) {
    for (const auto& [ours, got] : report) {
      if (ours != name) continue;
      CAPTURE(name);
      CHECK(got == Approx(value.get<double>()).margin(kBound).epsilon(0));
      ++seen;
    }
  }
  CHECK(seen == 10);
}

TEST_CASE("zero-shot: CLIP_benchmark's accuracies", "[golden]") {
  const Classification c =
      classification_metrics(file().tensor("classify.images"), file().tensor("classify.classes"), integers("classify.labels"));
  const nlohmann::json expected = truth("classification");
  CHECK(c.top1 == Approx(expected["top1"].get<double>()).margin(kBound).epsilon(0));
  CHECK(c.top5 == Approx(expected["top5"].get<double>()).margin(kBound).epsilon(0));
  CHECK(c.mean_per_class_recall == Approx(expected["mean_per_class_recall"].get<double>()).margin(kBound).epsilon(0));
}

TEST_CASE("the linear probe is scikit-learn's logistic regression", "[golden]") {
  const Tensor x = file().tensor("probe.features");
  const std::vector<std::int64_t> labels = integers("classify.labels");
  const nlohmann::json expected = truth("probe");
  const LinearProbe probe =
      fit_linear_probe(x.slice(0, 0, 150), part(labels, 0, 150), 8, {.c = 0.316, .max_steps = 1000, .tolerance = 5e-7});
  CHECK(probe.converged);
  CHECK(probe.loss == Approx(expected["loss"].get<double>()).epsilon(1e-6));
  const std::vector<double> w = file().doubles("probe.w");
  const std::vector<float> got = probe.w.to_vector();
  double distance = 0.0, length = 0.0;
  for (std::size_t i = 0; i < w.size(); ++i) {
    distance += (static_cast<double>(got[i]) - w[i]) * (static_cast<double>(got[i]) - w[i]);
    length += w[i] * w[i];
  }
  CHECK(std::sqrt(distance / length) < 1e-4);
  const Classification c = classification_metrics(probe.inputs(x.slice(0, 150, 200)), probe.classes(), part(labels, 150, 200));
  CHECK(c.top1 == Approx(expected["top1"].get<double>()).margin(kBound).epsilon(0));
}

TEST_CASE("k nearest neighbours", "[golden]") {
  const Tensor x = file().tensor("classify.images");
  const std::vector<std::int64_t> labels = integers("classify.labels");
  const nlohmann::json expected = truth("probe")["knn"];
  for (const int k : {1, 5, 20}) {
    const Classification c = knn_metrics(x.slice(0, 0, 150), part(labels, 0, 150), x.slice(0, 150, 200), part(labels, 150, 200), 8, k);
    CAPTURE(k);
    CHECK(c.top1 == Approx(expected[std::to_string(k)].get<double>()).margin(kBound).epsilon(0));
    if (k == 1) CHECK(c.top5 == c.top1);  // a class without a neighbour is not among the five
  }
}

}  // namespace
}  // namespace twinlens::test
