// Whole steps by the card's kernels: their losses are the CPU's, and what a graph holds does what the steps that it was recorded from do.

#include <catch2/catch.hpp>
#include <cmath>
#include <map>
#include <string>
#include <vector>

#include "bench/step/runner.h"
#include "tests/fake_card/fake_card.h"
#include "tests/support/graph_steps.h"
#include "tests/support/op_case.h"
#include "tests/support/temporary_folder.h"
#include "tests/support/toy_data.h"
#include "tests/support/toy_training.h"

#include "twinlens/clip/trainer.h"
#include "twinlens/core/file.h"
#include "twinlens/core/safetensors.h"

namespace twinlens::test {
namespace {

constexpr Device kCard{DeviceType::cuda, 0};

std::vector<float> losses_of(const bench::RunnerOptions& o, int steps) {
  bench::Runner runner(o);
  std::vector<Tensor> losses;
  for (int i = 0; i < steps; ++i) losses.push_back(runner.step());
  std::vector<float> out;
  for (const Tensor& loss : losses) out.push_back(loss.item());
  return out;
}

// `compared`: the first steps; later ones carry on what rounding did to the first, AdamW's first ones by the sign of a gradient.
void check_steps(const std::string& model_json, const char* precision, std::size_t compared, double tolerance) {
  INFO(model_json << ", " << precision);
  const TemporaryFolder folder;
  write_text(folder / "model.json", model_json);
  bench::RunnerOptions o;
  o.model = folder / "model.json";
  o.precision = precision;
  o.batch_size = 8;
  o.learning_rate = 1e-3;
  o.grad_clip_norm = 1.0;
  const std::vector<float> cpu = losses_of(o, 4);
  CHECK(cpu[3] < cpu[0]);
  o.device = "cuda";
  const std::vector<float> card = losses_of(o, 4);
  for (std::size_t i = 0; i < compared; ++i) CHECK(std::abs(card[i] - cpu[i]) <= tolerance * std::abs(cpu[i]));
  const std::int64_t launched = fake_card().graph_launches;
  o.async_step = o.cuda_graphs = true;
  CHECK(losses_of(o, 4) == card);
  CHECK(fake_card().graph_launches > launched);
}

}  // namespace

TEST_CASE("steps by the card's kernels have the CPU's losses, in graphs too", "[cuda]") {
  for (const std::string& model : {toy_vit_json(), toy_resnet_json()}) {
    check_steps(model, "fp32", 4, 1e-5);
    check_steps(model, "bf16", 1, 2e-3);
  }
}

TEST_CASE("a step in f16 in a graph gives the weights of a plain one", "[cuda]") {
  for (const std::string& model : {toy_vit_json(), toy_resnet_json()}) {
    GraphSteps plain(model, kCard, Compute::f16), graphs(model, kCard, Compute::f16);
    const std::vector<float> first = plain.flat->values.to_vector();
    for (std::uint64_t round = 0; round < 6; ++round) {
      const PairBatch batch = ragged_batch(8, round, 3);
      plain.queue(plain.inputs_of(batch), true);
      graphs.queue(graphs.inputs_of(batch));
      CHECK(graphs.flat->values.to_vector() == plain.flat->values.to_vector());
    }
    CHECK(graphs.graphs->counts().launched >= 2);
    CHECK(plain.flat->values.to_vector() != first);
  }
}

// Graphs fill batches up to a few sizes, so that sums have other terms of 0 and another order: weights agree to rounding.
TEST_CASE("training in f16, its scale on the card, gives the weights of plain steps", "[cuda]") {
  const TemporaryFolder folder;
  TrainOptions o = toy_training(folder, toy_pairs(24));
  o.device = "cuda";
  o.precision = "amp";
  o.batch_size = 8;
  o.epochs = 4;
  o.lr = 1e-3;
  o.grad_clip_norm = 1.0;
  o.save_frequency = 0;
  o.report_seconds = 1e9;
  const auto weights = [&](const std::string& name) {
    o.name = name;
    train(o);
    return folder / ("logs/" + name + "/model/open_clip_model.safetensors");
  };
  const std::string plain = weights("plain");
  o.async_step = true;
  CHECK((read_file(weights("async")) == read_file(plain)));
  const std::int64_t launched = fake_card().graph_launches;
  o.cuda_graphs = true;
  o.prefetch_batches = 2;
  const std::map<std::string, Tensor> got = read_safetensors(weights("graphs")), want = read_safetensors(plain);
  CHECK(fake_card().graph_launches > launched);
  REQUIRE(got.size() == want.size());
  for (const auto& [name, tensor] : want) {
    INFO(name);
    const std::vector<float> expected = tensor.to_vector();
    CHECK(relative_error(got.at(name).to_vector(), {expected.begin(), expected.end()}, 1e-4) <= 1e-6);
  }
}

}  // namespace twinlens::test
