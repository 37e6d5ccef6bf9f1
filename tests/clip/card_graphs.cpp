// Steps in graphs on a card: the weights of the same steps queued kernel by kernel.

#include <catch2/catch.hpp>

#include "tests/support/graph_steps.h"
#include "tests/support/no_card.h"
#include "tests/support/temporary_folder.h"
#include "tests/support/toy_data.h"
#include "tests/support/toy_training.h"

#include "twinlens/clip/trainer.h"
#include "twinlens/core/autograd.h"
#include "twinlens/core/file.h"
#include "twinlens/core/ops.h"

namespace twinlens::test {
namespace {

constexpr Device kCard{DeviceType::cuda, 0};

}  // namespace

TEST_CASE("a recorded product is done again on a card", "[cuda]") {
  if (no_card()) return;
  MemoryPool pool(current_stream(kCard));
  Tensor in = full({64, 64}, 1.0, DType::f32, kCard), out = zeros({64, 64}, DType::f32, kCard);
  const auto work = [&] {
    const NoGrad guard;
    out.copy_(affine(matmul(in, in), 1.0, 1.0));
  };
  CHECK_FALSE(Graph::record(pool, work).has_value());
  {
    const MemoryPool::Use use(pool);
    work();
  }
  const std::optional<Graph> graph = Graph::record(pool, work);
  REQUIRE(graph.has_value());
  for (const float x : {2.0F, 3.0F, 4.0F}) {
    in.fill_(static_cast<double>(x));
    graph->launch();
    CHECK(out.to_vector() == std::vector<float>(64 * 64, 64.0F * x * x + 1.0F));
  }
}

TEST_CASE("graphs give the weights of plain steps on a card", "[cuda]") {
  if (no_card()) return;
  for (const std::string& model : {toy_vit_json(), toy_resnet_json()}) {
    for (const Compute compute : {Compute::fp32, Compute::bf16}) {
      GraphSteps plain(model, kCard, compute), graphs(model, kCard, compute);
      for (std::uint64_t round = 0; round < 40; ++round) {
        const PairBatch batch = ragged_batch(64, round, round % 3 == 0 ? 14 : 9);
        plain.queue(plain.inputs_of(batch), true);
        graphs.queue(graphs.inputs_of(batch), round % 10 == 9);
      }
      INFO(graphs.graphs->text());
      CHECK(graphs.graphs->counts().launched > 10);
      CHECK(graphs.flat->values.to_vector() == plain.flat->values.to_vector());
    }
  }
}

TEST_CASE("a run in graphs learns what a plain one learns on a card", "[cuda]") {
  if (no_card()) return;
  const TemporaryFolder folder;
  TrainOptions o = toy_training(folder, toy_pairs(64, 60));
  o.workers = 2;
  o.device = "cuda";
  o.precision = "amp_bf16";
  o.batch_size = 16;
  o.epochs = 10;
  o.lr = 1e-3;
  o.async_step = true;
  o.prefetch_batches = 2;
  o.name = "plain";
  const double want = train(o).last_loss;
  o.name = "graphs";
  o.cuda_graphs = true;
  CHECK(train(o).last_loss == Approx(want).epsilon(0.1));  // products of other sizes are rounded otherwise
  CHECK_THAT(read_file(folder / "logs/graphs/out.log"), Catch::Contains("graphs: ") && Catch::Contains(" batch sizes, launched "));
}

}  // namespace twinlens::test
