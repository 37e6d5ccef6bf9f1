// Two ranks with batch b are one rank with batch 2b: features gathered, loss over the columns of all ranks, gradients averaged.

#include <catch2/catch.hpp>
#include <cmath>
#include <mutex>

#include "twinlens/clip/train_step.h"
#include "twinlens/core/ops.h"
#include "twinlens/kernels/error.h"
#include "twinlens/kernels/isa.h"
#include "twinlens/nn/optimizer.h"

namespace twinlens {
namespace {

constexpr std::int64_t kBatch = 12;
constexpr int kSteps = 3;

ModelConfig tiny() {
  ModelConfig c;
  c.embed_dim = 24;
  c.init_logit_bias = -3.0;  // (has no part in the softmax loss)
  c.vision.layers = {2};
  c.vision.width = 48;
  c.vision.head_width = 24;
  c.vision.patch_size = 8;
  c.vision.image_size = 24;
  c.text.context_length = 12;
  c.text.vocab_size = 100;
  c.text.width = 40;
  c.text.heads = 2;
  c.text.layers = 2;
  c.validate();
  return c;
}

// Rows [begin, end) of the batch of a step. Captions 2 and 8, 3 and 4 and 9 are equal: within a rank and across ranks.
PairBatch batch_of(std::int64_t step, std::int64_t begin, std::int64_t end) {
  Tensor pixels = empty({kBatch, 24, 24, 3});
  normal_(pixels, 0.0, 1.0, 5, static_cast<std::uint64_t>(step));
  PairBatch batch;
  batch.pixels = pixels.slice(0, begin, end);
  for (std::int64_t i = begin; i < end; ++i) {
    const std::int64_t id = i == 8 ? 2 : i == 4 || i == 9 ? 3 : i;
    std::vector<std::int32_t> caption{98};
    for (std::int64_t t = 0; t < 2 + id % 7; ++t) caption.push_back(static_cast<std::int32_t>((step * 31 + id * 17 + t * t * 5) % 90));
    caption.push_back(99);
    batch.captions.push_back(caption);
    batch.caption_ids.push_back(id);
  }
  return batch;
}

struct Trained {
  std::vector<double> losses;
  std::vector<float> gradients;  // of the first step
  std::vector<float> start, values;
};

// What one rank does with its share of every batch.
Trained train(Communicator& communicator, const StepOptions& options) {
  Clip model(tiny(), 3);
  FlatParameters flat(collect(model), false);
  StepBlock block;
  Context context;
  context.training = true;
  context.step = &block;
  Trained t;
  t.start = flat.values.to_vector();
  const std::int64_t share = kBatch / communicator.size(), begin = communicator.rank() * share;
  for (int step = 0; step < kSteps; ++step) {
    block.step = static_cast<std::uint64_t>(step);
    block.learning_rate = 1e-3F;
    flat.zero_gradients();
    t.losses.push_back(forward_backward(model, batch_of(step, begin, begin + share), options, context, communicator));
    average_gradients(flat, communicator);
    if (step == 0) t.gradients = flat.gradients.to_vector();
    // A large eps: the default divides gradients that are all but rounding by their own size.
    adamw_step(flat, block, {.eps = 1e-3});
    model.clamp_logit_scale();
  }
  t.values = flat.values.to_vector();
  return t;
}

std::vector<Trained> train_on(int ranks, const StepOptions& options) {
  std::vector<Trained> all(static_cast<std::size_t>(ranks));
  run_thread_ranks(ranks, [&](Communicator& c) { all[static_cast<std::size_t>(c.rank())] = train(c, options); });
  return all;
}

// |a - b| / |b - zero|, all in the 2-norm.
double distance(const std::vector<float>& a, const std::vector<float>& b, const std::vector<float>& zero) {
  double difference = 0.0, size = 0.0;
  for (std::size_t i = 0; i < a.size(); ++i) {
    difference += std::pow(static_cast<double>(a[i]) - static_cast<double>(b[i]), 2);
    size += std::pow(static_cast<double>(b[i]) - static_cast<double>(zero[i]), 2);
  }
  return std::sqrt(difference / size);
}

void check_against_one_rank(int ranks, const StepOptions& options) {
  const auto solo = solo_communicator();
  const Trained one = train(*solo, options);
  const std::vector<Trained> all = train_on(ranks, options);
  const std::vector<float> zero(one.gradients.size(), 0.0F);
  // AdamW makes whole steps of gradients that are rounding noise. Without a fused multiply-add it is twice the noise
  // (tests/golden/README.md).
  const double roundings = active_isa() == Isa::scalar ? 2.0 : 1.0;
  for (int step = 0; step < kSteps; ++step) {
    double mean = 0.0;
    for (const Trained& t : all) mean += t.losses[static_cast<std::size_t>(step)] / ranks;
    CHECK(mean == Approx(one.losses[static_cast<std::size_t>(step)]).epsilon(2e-6));
  }
  for (const Trained& t : all) {
    CHECK(distance(t.gradients, one.gradients, zero) < 2e-6);
    CHECK(distance(t.values, one.values, one.start) < 5e-6 * roundings);
    CHECK(t.gradients == all[0].gradients);
    CHECK(t.values == all[0].values);
  }
}

}  // namespace

TEST_CASE("ranks: several with a share of the batch are one with all of it", "[ranks]") {
  StepOptions options;
  SECTION("two ranks") { check_against_one_rank(2, options); }
  SECTION("three ranks") { check_against_one_rank(3, options); }
  SECTION("equal captions as positives, across ranks too") {
    options.equal_captions = EqualCaptions::positives;
    check_against_one_rank(2, options);
  }
  SECTION("cached features: chunks of a rank's share") {
    options.max_chunk = 4;
    check_against_one_rank(2, options);
  }
  SECTION("all logits in memory") {
    options.stream_loss = false;
    check_against_one_rank(2, options);
  }
  SECTION("SigLIP's loss") {
    options.loss = LossKind::sigmoid;
    check_against_one_rank(3, options);
    options.equal_captions = EqualCaptions::positives;
    check_against_one_rank(2, options);
  }
  SECTION("every caption encoded, padded") {
    options.encode_equal_once = options.pack_captions = false;
    check_against_one_rank(2, options);
  }
}

TEST_CASE("ranks: columns of other ranks count", "[ranks]") {
  // Without them half a batch has another gradient altogether: the comparison above can fail.
  const auto solo = solo_communicator();
  const Trained whole = train(*solo, {});
  Clip model(tiny(), 3);
  FlatParameters flat(collect(model), false);
  Context context;
  context.training = true;
  flat.zero_gradients();
  forward_backward(model, batch_of(0, 0, 6), {}, context, *solo);
  forward_backward(model, batch_of(0, 6, 12), {}, context, *solo);
  const std::vector<float> halves = affine(flat.gradients, 0.5, 0.0).to_vector();
  CHECK(distance(halves, whole.gradients, std::vector<float>(halves.size(), 0.0F)) > 0.05);
}

TEST_CASE("ranks: equal bits from run to run", "[ranks]") {
  const std::vector<Trained> first = train_on(2, {}), second = train_on(2, {});
  CHECK(first[0].values == second[0].values);
  CHECK(first[0].losses == second[0].losses);
  CHECK(first[1].losses == second[1].losses);
}

TEST_CASE("ranks: what they say to each other", "[ranks]") {
  std::mutex mutex;  // Catch2's assertions are not made for several threads
  run_thread_ranks(3, [&](Communicator& c) {
    const auto mine = static_cast<float>(c.rank() + 1);
    Tensor sum = full({2}, mine), largest = full({2}, mine), from_one = full({2}, mine), left = zeros({2});
    c.all_reduce(sum, Communicator::Op::sum);
    c.all_reduce(largest, Communicator::Op::max);
    const Tensor all = c.all_gather(full({1, 2}, mine));
    const Tensor own = c.reduce_scatter(from_vector(std::vector<float>{mine, 10 * mine, 100 * mine}, {3}));
    c.broadcast(from_one, 1);
    c.send_recv(full({2}, mine), (c.rank() + 1) % 3, left, (c.rank() + 2) % 3);
    c.barrier();
    const std::lock_guard lock(mutex);
    CHECK(sum.to_vector() == std::vector<float>{6, 6});
    CHECK(largest.to_vector() == std::vector<float>{3, 3});
    CHECK(all.to_vector() == std::vector<float>{1, 1, 2, 2, 3, 3});
    CHECK(own.to_vector() == std::vector<float>{static_cast<float>(6 * std::pow(10, c.rank()))});
    CHECK(from_one.to_vector() == std::vector<float>{2, 2});
    CHECK(left.to_vector() == std::vector<float>(2, static_cast<float>((c.rank() + 2) % 3 + 1)));
  });
}

TEST_CASE("ranks: one that fails ends the others, and its error is what is seen", "[ranks]") {
  const auto body = [](Communicator& c) {
    if (c.rank() == 1) throw ConfigError("rank 1 has no data");
    c.barrier();
  };
  CHECK_THROWS_WITH(run_thread_ranks(2, body), "rank 1 has no data");
}

TEST_CASE("ranks: what there is no rank of is refused", "[ranks]") {
  const auto broadcast = [](Communicator& c) {
    Tensor x = zeros({2});
    c.broadcast(x, 7);
  };
  CHECK_THROWS_WITH(run_thread_ranks(2, broadcast), Catch::Contains("broadcast: there is no rank 7 of 2"));
  const auto exchange = [](Communicator& c) {
    Tensor x = zeros({2});
    c.send_recv(zeros({2}), 1, x, -1);
  };
  CHECK_THROWS_WITH(run_thread_ranks(2, exchange), Catch::Contains("send_recv: there is no rank -1 of 2"));
  const auto uneven = [](Communicator& c) { gather_rows(zeros({2 + c.rank(), 3}), c); };
  CHECK_THROWS_WITH(run_thread_ranks(2, uneven), Catch::Contains("all_gather: this rank has [") && Catch::Contains("the same shape"));
  CHECK_THROWS_AS(run_thread_ranks(-1, broadcast), ConfigError);
  CHECK_THROWS_AS(run_thread_ranks(2, {}), ConfigError);
}

}  // namespace twinlens
