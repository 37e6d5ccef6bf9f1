// Captions filled up to a bucket: batches of few sizes, and the loss, gradients and weights of the batch as it is.

#include "clip/src/row_buckets.h"

#include <algorithm>
#include <catch2/catch.hpp>
#include <cmath>
#include <random>
#include <set>

#include "tests/support/toy_data.h"

#include "twinlens/clip/train_step.h"
#include "twinlens/core/random.h"
#include "twinlens/nn/optimizer.h"

namespace twinlens::test {
namespace {

using Captions = std::vector<std::vector<std::int32_t>>;

std::int64_t rows_of(const Captions& captions) {
  std::int64_t rows = 0;
  for (const auto& caption : captions) rows += static_cast<std::int64_t>(caption.size());
  return rows;
}

// `all` different ones, or with every third one equal to one before it.
PairBatch batch_of(std::int64_t pairs, bool some_equal, std::uint64_t round) {
  PairBatch batch;
  batch.pixels = empty({pairs, 32, 32, 3});
  normal_(batch.pixels, 0.0, 1.0, 7, round);
  std::mt19937_64 random(round);
  for (std::int64_t i = 0; i < pairs; ++i) {
    const bool repeats = some_equal && i % 3 == 2;
    std::vector<std::int32_t> caption{998};
    for (std::uint64_t t = random() % 9; t > 0; --t) caption.push_back(static_cast<std::int32_t>(random() % 990));
    caption.push_back(999);
    batch.captions.push_back(repeats ? batch.captions[static_cast<std::size_t>(i - 2)] : caption);
    batch.caption_ids.push_back(repeats ? i - 2 : i);
  }
  return batch;
}

struct Trained {
  std::vector<double> losses;
  std::vector<float> gradients, weights;
};

struct Case {
  std::string model;
  Compute compute;
  bool some_equal, pack;
};

Trained train_on(const Case& c, bool buckets) {
  Clip model(parse_model_config(c.model, "test"), 3);
  FlatParameters flat(collect(model), c.compute == Compute::bf16);
  StepBlock block;
  block.learning_rate = 1e-3F;
  Context context;
  context.training = true;
  context.step = &block;
  context.compute = c.compute;
  StepOptions options;
  options.equal_captions = EqualCaptions::positives;
  options.pack_captions = c.pack;
  options.row_buckets = buckets;
  const auto solo = solo_communicator();
  Trained out;
  for (std::uint64_t step = 0; step < 4; ++step) {
    flat.forget_gradients();
    out.losses.push_back(forward_backward(model, batch_of(24, c.some_equal, step), options, context, *solo));
    block.step = step;
    block.clip_factor = clip_factor(flat.gradient_norm(), 1.0);
    adamw_step(flat, block, {});
    model.clamp_logit_scale();
  }
  out.gradients = flat.gradients.to_vector();
  out.weights = flat.values.to_vector();
  return out;
}

double off_by(const std::vector<float>& a, const std::vector<float>& b) {
  double difference = 0.0, size = 0.0;
  for (std::size_t i = 0; i < b.size(); ++i) {
    difference += std::pow(static_cast<double>(a[i]) - static_cast<double>(b[i]), 2);
    size += std::pow(static_cast<double>(b[i]), 2);
  }
  return std::sqrt(difference / size);
}

}  // namespace

TEST_CASE("batches are filled up to few sizes, by captions of valid lengths", "[buckets]") {
  std::mt19937_64 random(1);
  for (const std::int64_t pairs : {1, 2, 8, 100, 1024}) {
    for (const std::int64_t context : {2, 16, 77}) {
      std::set<std::pair<std::size_t, std::int64_t>> sizes;
      for (int round = 0; round < 200; ++round) {
        Captions captions;
        const std::int64_t distinct = round % 2 == 0 ? pairs : 1 + static_cast<std::int64_t>(random() % static_cast<std::uint64_t>(pairs));
        const std::uint64_t longest = round < 4 ? 1 : static_cast<std::uint64_t>(context) - 1;
        for (std::int64_t i = 0; i < distinct; ++i)
          captions.emplace_back(round < 2 ? static_cast<std::size_t>(context) : 2 + random() % longest, 5);
        const std::int64_t rows = rows_of(captions);
        fill_bucket(captions, pairs, context, true);
        const RowBucket bucket = packed_bucket(pairs, context, distinct, rows);
        INFO(pairs << " pairs, context " << context << ", " << distinct << " captions of " << rows << " rows");
        REQUIRE(captions.size() == static_cast<std::size_t>(bucket.captions));
        REQUIRE(rows_of(captions) == bucket.rows);
        const auto lengths = [](const auto& a, const auto& b) { return a.size() < b.size(); };
        REQUIRE(std::min_element(captions.begin(), captions.end(), lengths)->size() >= 1);
        REQUIRE(std::max_element(captions.begin(), captions.end(), lengths)->size() == static_cast<std::size_t>(context));
        // What is added: two steps of rows, the longest one, and a row for each caption.
        REQUIRE(bucket.rows - rows <= 2 * (pairs * context / 64 + 1) + context + bucket.captions - distinct);
        if (round % 2 != 0) continue;
        // All captions differ: one number of them, and 64 steps of rows and a few, of 100 batches that have nearly as many numbers of rows.
        REQUIRE(bucket.captions == packed_bucket(pairs, context, pairs, 0).captions);
        sizes.emplace(captions.size(), bucket.rows);
      }
      CHECK(sizes.size() <= 66);
    }
  }
  // As drawn from one data set: a batch of captions of about 20 tokens has one of a few sizes.
  std::set<std::int64_t> sizes;
  for (int round = 0; round < 100; ++round) {
    std::int64_t rows = 0;
    for (int i = 0; i < 1024; ++i) rows += 8 + static_cast<std::int64_t>(random() % 25);
    sizes.insert(packed_bucket(1024, 77, 1024, rows).rows);
  }
  CHECK(sizes.size() <= 3);
  Captions padded(5, {1, 2});
  fill_bucket(padded, 100, 77, false);
  CHECK(padded.size() == 7);
  padded.resize(99);
  fill_bucket(padded, 100, 77, false);
  CHECK(padded.size() == 100);
}

TEST_CASE("steps on batches that are filled up are those on batches as they are", "[buckets]") {
  for (const std::string& model : {toy_vit_json(), toy_resnet_json()}) {
    for (const Compute compute : {Compute::fp32, Compute::bf16}) {
      for (const bool some_equal : {false, true}) {
        for (const bool pack : {true, false}) {
          const Case c{model, compute, some_equal, pack};
          const Trained got = train_on(c, true), want = train_on(c, false);
          INFO(model << (compute == Compute::bf16 ? " bf16" : " fp32") << (some_equal ? ", some equal" : "") << (pack ? "" : ", padded"));
          CHECK(got.losses == want.losses);
          CHECK(off_by(got.gradients, want.gradients) == 0.0);
          CHECK(off_by(got.weights, want.weights) == 0.0);
        }
      }
    }
  }
}

}  // namespace twinlens::test
