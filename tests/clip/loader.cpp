// The loader: what batches hold, in which order, and what happens when something goes wrong. Run under ThreadSanitizer too.

#include "twinlens/clip/loader.h"

#include <algorithm>
#include <atomic>
#include <catch2/catch.hpp>
#include <chrono>
#include <cmath>
#include <set>
#include <thread>

#include "tests/support/loading.h"
#include "tests/support/toy_data.h"

#include "twinlens/clip/image.h"
#include "twinlens/kernels/error.h"

namespace twinlens::test {
namespace {

using Catch::Contains;

// Pairs in memory. Counts reads; some pictures are damaged or throw.
class MemoryDataset final : public Dataset {
 public:
  explicit MemoryDataset(int count, int captions = 1 << 20) {
    for (ToyPair& pair : toy_pairs(count, 20)) pairs_.push_back(std::move(pair));
    for (int i = 0; i < count; ++i) ids_.push_back(i % captions);
  }
  std::int64_t size() const override { return static_cast<std::int64_t>(pairs_.size()); }
  std::string key(std::int64_t i) const override { return "memory:" + std::to_string(i); }
  std::string image_bytes(std::int64_t i) const override {
    ++reads;
    if (i == throws_at) throw std::runtime_error("the disk is on fire");
    if (slow_even && i % 2 == 0) std::this_thread::sleep_for(std::chrono::microseconds(300));
    return damaged.count(i) > 0 ? "damaged" : pairs_[static_cast<std::size_t>(i)].png;
  }
  std::string caption(std::int64_t i) const override { return "caption " + std::to_string(caption_id(i)); }
  std::int64_t caption_id(std::int64_t i) const override { return ids_[static_cast<std::size_t>(i)]; }
  std::string field(std::int64_t, const std::string&) const override { return {}; }
  const std::vector<SkippedSample>& skipped() const override { return skipped_in_index; }
  std::string fingerprint() const override { return "memory"; }

  mutable std::atomic<int> reads{0};
  std::set<std::int64_t> damaged;
  std::int64_t throws_at = -1;
  bool slow_even = false;
  std::vector<SkippedSample> skipped_in_index;

 private:
  std::vector<ToyPair> pairs_;
  std::vector<std::int64_t> ids_;
};

TEST_CASE("a loader without batches, workers or a place among the ranks is refused", "[loader]") {
  const auto data = std::make_shared<MemoryDataset>(22);
  const auto refused = [&](const LoaderOptions& o, const std::string& message) {
    CHECK_THROWS_WITH(Loader(data, tokenizer(), o), Catch::Contains("loader: " + message));
  };
  refused(options_of(0, 1), "batch_size is 0; LoaderOptions; give at least 1");
  refused(options_of(2, 0), "workers is 0; LoaderOptions; give at least 1");
  LoaderOptions empty_pictures = options_of(2, 1);
  empty_pictures.image_size = 0;
  refused(empty_pictures, "image_size is 0; LoaderOptions; give at least 1");
  LoaderOptions buffer = options_of(2, 1);
  buffer.shuffle_buffer = -1;
  refused(buffer, "shuffle_buffer is -1; LoaderOptions; ");
  LoaderOptions most = options_of(2, 1);
  most.max_skipped = 2.0;
  refused(most, "2.000000 is no share; --max-skipped; give a number from 0 to 1");
  LoaderOptions second = options_of(2, 1);
  second.rank = 1;
  refused(second, "rank 1 of 1; LoaderOptions; ");
  CHECK_THROWS_WITH(Loader(std::make_shared<MemoryDataset>(4), tokenizer(), options_of(2, 1), 0, -3),
                    Contains("loader: it begins in epoch 0 with batch -3; LoaderOptions; count both from 0"));
  CHECK_THROWS_WITH(Loader(nullptr, tokenizer(), options_of(2, 1)), Catch::Contains("loader: no dataset or no tokenizer"));
}

TEST_CASE("an order of batches without samples is refused", "[loader]") {
  const auto data = std::make_shared<MemoryDataset>(8);
  CHECK_THROWS_WITH(epoch_order(*data, 0, 1, 0, false), Catch::Contains("global_batch is 0; OrderOptions; give at least 1"));
}

TEST_CASE("batches do not depend on the number of workers", "[loader]") {
  const auto data = std::make_shared<MemoryDataset>(22);
  data->slow_even = true;
  data->damaged = {5, 6, 21};
  LoaderOptions one = options_of(4, 1), many = options_of(4, 4);
  one.max_skipped = many.max_skipped = 0.5;
  Loader a(data, tokenizer(), one), b(data, tokenizer(), many);
  for (int i = 0; i < 15; ++i) {
    check_equal(a.next(), b.next());
    // What is reported, and when, does not depend on them either.
    REQUIRE(a.skipped().size() == b.skipped().size());
    for (std::size_t k = 0; k < a.skipped().size(); ++k) CHECK(a.skipped()[k].key == b.skipped()[k].key);
  }
  CHECK(a.skipped().size() == 3);
}

TEST_CASE("what an earlier part of the run has skipped counts", "[loader]") {
  const auto data = std::make_shared<MemoryDataset>(40);
  data->damaged = {3};
  LoaderOptions o = options_of(4, 1);
  o.max_skipped = 0.05;
  const auto epoch = [&] {
    Loader loader(data, tokenizer(), o);
    for (int i = 0; i < 10; ++i) loader.next();
  };
  o.skipped_before = {data->key(3), "another"};  // the first is met again
  epoch();
  o.skipped_before.push_back("a third");
  CHECK_THROWS_WITH(epoch(), Catch::Contains("3 of 40 samples cannot be used"));
}

TEST_CASE("decoded pictures that all fit are kept, and batches are the same", "[loader]") {
  const auto plain_data = std::make_shared<MemoryDataset>(100), kept_data = std::make_shared<MemoryDataset>(100),
             large_data = std::make_shared<MemoryDataset>(100);
  std::int64_t bytes = 0;
  for (std::int64_t i = 0; i < 100; ++i) bytes += static_cast<std::int64_t>(decode_image(plain_data->image_bytes(i), "x", {}).rgb.size());
  for (const auto& data : {plain_data, kept_data, large_data}) {
    data->damaged = {7};
    data->reads = 0;
  }
  LoaderOptions o = options_of(10, 3);
  o.max_skipped = 0.02;
  Loader plain(plain_data, tokenizer(), o);
  o.decoded_cache = bytes * 3 / 2;
  Loader kept(kept_data, tokenizer(), o);
  o.decoded_cache = bytes / 2;  // not enough: nothing is kept
  Loader large(large_data, tokenizer(), o);
  for (int i = 0; i < 40; ++i) {
    const LoadedBatch batch = plain.next();
    check_equal(kept.next(), batch);
    check_equal(large.next(), batch);
  }
  CHECK(kept_data->reads < 150);  // (the damaged one in every epoch, and some that two workers wanted at once)
  CHECK(large_data->reads >= 390);
}

TEST_CASE("every sample comes once an epoch, in another order each time", "[loader]") {
  const auto data = std::make_shared<MemoryDataset>(24);
  Loader loader(data, tokenizer(), options_of(4, 3));
  CHECK(loader.batches_per_epoch() == 6);
  std::vector<std::vector<std::int64_t>> orders;
  for (int epoch = 0; epoch < 3; ++epoch) {
    std::vector<std::int64_t> order;
    for (int i = 0; i < 6; ++i) {
      const LoadedBatch batch = loader.next();
      CHECK(batch.epoch == epoch);
      CHECK(batch.index == i);
      CHECK(batch.last == (i == 5));
      CHECK(batch.pixels.shape() == Shape{4, 16, 16, 3});
      for (std::size_t k = 0; k < 4; ++k) {
        CHECK(batch.captions[k].front() == 998);
        CHECK(batch.captions[k].back() == 999);
        CHECK(batch.caption_ids[k] == batch.samples[k]);
      }
      order.insert(order.end(), batch.samples.begin(), batch.samples.end());
    }
    orders.push_back(order);
    std::sort(order.begin(), order.end());
    for (std::int64_t i = 0; i < 24; ++i) CHECK(order[static_cast<std::size_t>(i)] == i);
  }
  CHECK(orders[0] != orders[1]);
  CHECK(orders[1] != orders[2]);
}

TEST_CASE("a loader can be taken up at any batch of any epoch", "[loader]") {
  const auto data = std::make_shared<MemoryDataset>(26, 9);
  const bool apart = GENERATE(false, true);
  LoaderOptions o = options_of(4, 2);
  o.equal_captions_apart = apart;
  std::vector<LoadedBatch> all;
  Loader whole(data, tokenizer(), o);
  for (int i = 0; i < 14; ++i) all.push_back(whole.next());
  for (const std::size_t at : {1U, 5U, 6U, 8U, 13U}) {
    Loader later(data, tokenizer(), o, all[at].epoch, all[at].index);
    for (std::size_t i = at; i < all.size(); ++i) check_equal(later.next(), all[i]);
  }
  // One behind the last batch of an epoch is the first of the next.
  Loader next(data, tokenizer(), o, 0, whole.batches_per_epoch() + 100);
  CHECK(next.next().epoch == 1);
}

TEST_CASE("the order of an epoch: a permutation cut to whole batches", "[loader]") {
  const MemoryDataset data(50);
  const auto order = epoch_order(data, 8, 1, 2, false);
  CHECK(order.size() == 48);
  CHECK(std::set<std::int64_t>(order.begin(), order.end()).size() == 48);
  CHECK(order == epoch_order(data, 8, 1, 2, false));
  CHECK(order != epoch_order(data, 8, 2, 2, false));
}

TEST_CASE("equal captions are kept apart, also when a picture is replaced", "[loader]") {
  // 40 samples of 10 captions: sample i has caption i % 10, so a batch of 8 leaves two captions free.
  const auto data = std::make_shared<MemoryDataset>(40, 10);
  const auto order = epoch_order(*data, 8, 7, 0, true);
  CHECK(order.size() >= 24);
  CHECK(std::set<std::int64_t>(order.begin(), order.end()).size() == order.size());
  LoaderOptions o = options_of(8, 2);
  o.equal_captions_apart = true;
  o.max_skipped = 1.0;
  data->damaged = {0, 1, 12, 13, 24, 35};
  Loader loader(data, tokenizer(), o);
  for (int i = 0; i < 12; ++i) {
    const LoadedBatch batch = loader.next();
    CHECK(std::set<std::int64_t>(batch.caption_ids.begin(), batch.caption_ids.end()).size() == 8);
    for (const std::int64_t sample : batch.samples) CHECK(data->damaged.count(sample) == 0);
  }
  CHECK(loader.skipped().size() == 6);
  // Batches of all captions: in place of a damaged picture comes another of its caption.
  LoaderOptions all = options_of(10, 2);
  all.equal_captions_apart = true;
  all.max_skipped = 1.0;
  Loader whole(data, tokenizer(), all);
  for (int i = 0; i < 8; ++i) {
    const LoadedBatch batch = whole.next();
    CHECK(std::set<std::int64_t>(batch.caption_ids.begin(), batch.caption_ids.end()).size() == 10);
  }
  const auto alone = std::make_shared<MemoryDataset>(10);
  alone->damaged = {4};
  Loader without(alone, tokenizer(), all);
  CHECK_THROWS_WITH(without.next(), Contains("no usable picture among 1 samples, and the batch has the captions of all others; near"));
  // Without the option, a batch of 8 of 10 captions has equal ones.
  o.equal_captions_apart = false;
  Loader mixed(data, tokenizer(), o);
  bool equal = false;
  for (int i = 0; i < 5; ++i) {
    const LoadedBatch batch = mixed.next();
    equal = equal || std::set<std::int64_t>(batch.caption_ids.begin(), batch.caption_ids.end()).size() < 8;
  }
  CHECK(equal);
}

TEST_CASE("ranks share a global batch", "[loader]") {
  const auto data = std::make_shared<MemoryDataset>(24);
  LoaderOptions whole = options_of(8, 2), part = options_of(4, 2);
  part.world = 2;
  LoaderOptions other = part;
  other.rank = 1;
  Loader all(data, tokenizer(), whole), first(data, tokenizer(), part), second(data, tokenizer(), other);
  for (int i = 0; i < 5; ++i) {
    std::vector<std::int64_t> together = first.next().samples;
    const std::vector<std::int64_t> rest = second.next().samples;
    together.insert(together.end(), rest.begin(), rest.end());
    CHECK(together == all.next().samples);
  }
}

TEST_CASE("the queue is bounded", "[loader]") {
  const auto data = std::make_shared<MemoryDataset>(400);
  Loader loader(data, tokenizer(), options_of(4, 3));
  loader.next();
  std::this_thread::sleep_for(std::chrono::milliseconds(200));
  // One batch was taken; at most workers + 2 more may be under way or waiting.
  CHECK(data->reads.load() <= 4 * (1 + 3 + 2));
  CHECK(data->reads.load() >= 4 * 2);
}

TEST_CASE("an exception in a worker comes out of next() at its own batch, again and again", "[loader]") {
  const auto data = std::make_shared<MemoryDataset>(40);
  const auto order = epoch_order(*data, 4, 3, 0, false);
  data->throws_at = order[5 * 4 + 2];  // in batch 5
  Loader loader(data, tokenizer(), options_of(4, GENERATE(1, 4)));
  for (int i = 0; i < 5; ++i) CHECK(loader.next().index == i);
  CHECK_THROWS_WITH(loader.next(), "the disk is on fire");
  CHECK_THROWS_WITH(loader.next(), "the disk is on fire");
}

TEST_CASE("a loader that is given up in the middle ends its workers", "[loader]") {
  const auto data = std::make_shared<MemoryDataset>(64);
  data->slow_even = true;
  for (int batches = 0; batches < 6; ++batches) {
    Loader loader(data, tokenizer(), options_of(4, 4));
    for (int i = 0; i < batches; ++i) loader.next();
  }
  CHECK(data.use_count() == 1);
}

TEST_CASE("too many bad samples, none at all, and a batch that cannot be filled are errors", "[loader]") {
  const auto data = std::make_shared<MemoryDataset>(20);
  data->damaged = {3, 4, 9};
  data->skipped_in_index = {{"memory:x", "the caption is empty"}};
  LoaderOptions o = options_of(10, 2);
  o.max_skipped = 4.0 / 21;
  Loader enough(data, tokenizer(), o);
  for (int i = 0; i < 6; ++i) enough.next();
  CHECK(enough.skipped().size() == 4);
  CHECK(enough.skipped().front().reason == "the caption is empty");
  o.max_skipped = 3.0 / 21;
  Loader stops(data, tokenizer(), o);
  CHECK_THROWS_WITH(
      [&] {
        for (int i = 0; i < 6; ++i) stops.next();
      }(),
      Contains("4 of 21 samples cannot be used, more than --max-skipped allows; first: memory:x: the caption is empty"));

  // All of them found by an earlier part of the run.
  LoaderOptions resumed = options_of(10, 2);
  resumed.skipped_before = {"one", "other"};
  Loader before(std::make_shared<MemoryDataset>(20), tokenizer(), resumed);
  CHECK_THROWS_WITH(before.next(), Contains("2 of 20 samples cannot be used, more than --max-skipped allows; see skipped.tsv"));
  resumed.max_skipped = std::nan("");
  CHECK_THROWS_WITH(Loader(data, tokenizer(), resumed), Contains("nan is no share; --max-skipped"));

  const auto all_bad = std::make_shared<MemoryDataset>(8);
  for (std::int64_t i = 0; i < 8; ++i) all_bad->damaged.insert(i);
  o = options_of(4, 2);
  o.max_skipped = 1.0;
  Loader none(all_bad, tokenizer(), o);
  CHECK_THROWS_WITH(none.next(), Contains("no usable picture among 8 samples"));

  CHECK_THROWS_WITH(Loader(data, tokenizer(), options_of(21, 2)),
                    Contains("20 samples do not fill one batch of 21; --batch-size times --accum-freq"));
  o = options_of(8, 2);
  o.equal_captions_apart = true;
  CHECK_THROWS_WITH(Loader(std::make_shared<MemoryDataset>(20, 7), tokenizer(), o),
                    Contains("20 samples do not fill one batch of 8 with all captions different"));
}

}  // namespace
}  // namespace twinlens::test
