// Orders in blocks and with weights, and shards that are streamed in them. Run under ThreadSanitizer too.

#include "twinlens/clip/epoch_order.h"

#include <algorithm>
#include <catch2/catch.hpp>
#include <chrono>
#include <cstdlib>
#include <functional>
#include <map>
#include <set>

#include "tests/support/loading.h"
#include "tests/support/temporary_folder.h"
#include "tests/support/toy_tars.h"

#include "twinlens/clip/image.h"
#include "twinlens/clip/loader.h"
#include "twinlens/kernels/error.h"

namespace twinlens::test {
namespace {

using Catch::Contains;

DatasetOptions with(const std::function<void(DatasetOptions&)>& change) {
  DatasetOptions o;
  change(o);
  return o;
}
DatasetOptions compressed(const char* form) {
  return with([&](DatasetOptions& o) { o.compressed = form; });
}
DatasetOptions upsampled(double factor) {
  return with([&](DatasetOptions& o) { o.upsampling = {factor}; });
}

// Numbers only: files of given sizes, one source for each weight.
class Numbers final : public Dataset {
 public:
  Numbers(std::vector<std::int64_t> bounds, std::vector<DataSource> sources, bool sequential)
      : bounds_(std::move(bounds)), sources_(std::move(sources)), sequential_(sequential) {}
  std::int64_t size() const override { return bounds_.back(); }
  std::string key(std::int64_t i) const override { return std::to_string(i); }
  std::string image_bytes(std::int64_t) const override { return {}; }
  std::string caption(std::int64_t i) const override { return std::to_string(i); }
  std::int64_t caption_id(std::int64_t i) const override { return i % 97; }
  std::string field(std::int64_t, const std::string&) const override { return {}; }
  const std::vector<SkippedSample>& skipped() const override { return skipped_; }
  std::string fingerprint() const override { return "numbers"; }
  std::vector<DataSource> sources() const override { return sources_; }
  std::vector<std::int64_t> file_bounds() const override { return bounds_; }
  bool sequential() const override { return sequential_; }

 private:
  std::vector<std::int64_t> bounds_;
  std::vector<DataSource> sources_;
  std::vector<SkippedSample> skipped_;
  bool sequential_;
};

std::vector<std::int64_t> all_of(const EpochOrder& order) {
  std::vector<std::int64_t> out;
  for (std::int64_t i = 0; i < order.size(); ++i) out.push_back(order[i]);
  return out;
}

TEST_CASE("an order in blocks: every sample once, few files at a time, another order each epoch", "[loader]") {
  const bool sequential = GENERATE(false, true);
  std::vector<std::int64_t> bounds{0};
  for (int file = 0; file < 40; ++file) bounds.push_back(bounds.back() + 100 + file * 7 % 50);
  const std::int64_t n = bounds.back();
  const Numbers data(bounds, {{0, n, 1.0}}, sequential);
  std::vector<std::vector<std::int64_t>> orders;
  for (const std::int64_t epoch : {0, 1}) {
    const EpochOrder order(data, {.global_batch = 1, .seed = 4, .buffer = 500}, epoch);
    CHECK(order.buffer() == 500);
    orders.push_back(all_of(order));
    CHECK(orders.back().size() == static_cast<std::size_t>(n));
    CHECK(std::set<std::int64_t>(orders.back().begin(), orders.back().end()).size() == static_cast<std::size_t>(n));
    // A block of 500 touches files of 500 samples and a little more.
    for (std::size_t begin = 0; begin + 500 <= orders.back().size(); begin += 500) {
      std::set<std::ptrdiff_t> files;
      for (std::size_t i = begin; i < begin + 500; ++i)
        files.insert(std::upper_bound(bounds.begin(), bounds.end(), orders.back()[i]) - bounds.begin());
      CHECK(files.size() <= 7);
    }
  }
  CHECK(orders[0] != orders[1]);
  // Samples of a file stand apart from each other inside of a block.
  int neighbours = 0;
  for (std::size_t i = 1; i < 500; ++i) neighbours += orders[0][i] == orders[0][i - 1] + 1 ? 1 : 0;
  CHECK(neighbours < 25);
}

TEST_CASE("sources with factors come that many times an epoch", "[loader]") {
  const Numbers data({0, 300, 500, 1000}, {{0, 300, 2.0}, {300, 200, 0.5}, {500, 500, 1.3}}, false);
  const std::int64_t buffer = GENERATE(0, 128);
  std::vector<std::set<std::int64_t>> halves;
  for (const std::int64_t epoch : {0, 1}) {
    const EpochOrder order(data, {.global_batch = 10, .seed = 4, .buffer = buffer}, epoch);
    CHECK(order.size() == 600 + 100 + 650);
    std::map<std::int64_t, int> seen;
    for (const std::int64_t sample : all_of(order)) ++seen[sample];
    int halved = 0, thrice = 0;
    halves.emplace_back();
    for (std::int64_t i = 0; i < 1000; ++i) {
      if (i < 300) CHECK(seen[i] == 2);
      if (i >= 300 && i < 500 && seen[i] == 1) halves.back().insert(i);
      if (i >= 300 && i < 500) halved += seen[i];
      if (i >= 500) {
        CHECK((seen[i] == 1 || seen[i] == 2));
        thrice += seen[i];
      }
    }
    CHECK(halved == 100);
    CHECK(halves.back().size() == 100);
    CHECK(thrice == 650);
  }
  if (buffer == 0) CHECK(halves[0] != halves[1]);
  CHECK_THROWS_WITH(open_dataset("a.tar::b.tar", upsampled(1.0)), Contains("1 factors for 2 sources"));
  CHECK_THROWS_WITH(open_dataset("a.tar", upsampled(-1.0)), Contains("factors above 0"));
  CHECK_THROWS_WITH(open_dataset("a{3..1}.tar"), Contains("is empty"));
}

TEST_CASE("an order costs a moment, however many samples there are", "[loader]") {
  const std::int64_t n = 2'000'000'000;
  const Numbers data({0, n}, {{0, n, 1.0}}, false);
  const auto start = std::chrono::steady_clock::now();
  const EpochOrder order(data, {.global_batch = 32'768, .seed = 1}, 3);
  CHECK(order.size() == n / 32'768 * 32'768);
  std::set<std::int64_t> some;
  for (std::int64_t i = 0; i < 1000; ++i) some.insert(order[i * 1'900'000]);
  CHECK(some.size() == 1000);
  CHECK(std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count() < 5.0);
}

TEST_CASE("captions kept apart among many equal ones takes no longer than sorting", "[loader]") {
  // 97 captions, 40,000 samples, batches of 64: thousands wait at any time.
  const Numbers data({0, 40'000}, {{0, 40'000, 1.0}}, false);
  const EpochOrder order(data, {.global_batch = 64, .seed = 2, .apart = true}, 0);
  CHECK(order.size() > 39'000);
  for (std::int64_t b = 0; b < order.size(); b += 64) {
    std::set<std::int64_t> captions;
    for (std::int64_t i = b; i < b + 64; ++i) captions.insert(data.caption_id(order[i]));
    REQUIRE(captions.size() == 64);
  }
  const Numbers streamed({0, 100}, {{0, 100, 1.0}}, true);
  CHECK_THROWS_WITH(EpochOrder(streamed, {.global_batch = 4, .apart = true}, 0), Contains("cannot be kept apart in streamed shards"));
}

// 60 pairs in 6 shards: plain, gzip and zstd.
struct Shards {
  explicit Shards(const TemporaryFolder& folder) {
    const auto pairs = toy_pairs(60, 20);
    for (std::size_t s = 0; s < 6; ++s) {
      const std::string name = folder / ("s" + std::to_string(s) + ".tar");
      write_tar(name, members_of(pairs, s * 10, s * 10 + 10));
      s % 2 == 0 ? gzip(name, name + ".gz") : zstd(name, name + ".zst");
      const std::string packed = name + (s % 2 == 0 ? ".gz" : ".zst");
      make_old(packed);
      plain += (s == 0 ? "" : "::") + name;
      compressed += (s == 0 ? "" : "::") + packed;
    }
  }
  std::string plain, compressed;
};

TEST_CASE("streamed shards hold what plain ones do", "[loader]") {
  const TemporaryFolder folder;
  const Shards shards(folder);
  const auto plain = open_dataset(shards.plain);
  for (const char* form : {"unpack", "stream", "auto"}) {
    INFO(form);
    const auto data = open_dataset(shards.compressed, compressed(form));
    CHECK(data->sequential() == (std::string(form) == "stream"));
    REQUIRE(data->size() == 60);
    // Forwards, as an evaluation reads, and at random.
    for (std::int64_t k = 0; k < 120; ++k) {
      const std::int64_t i = k < 60 ? k : (k * 37) % 60;
      CHECK(data->image_bytes(i) == plain->image_bytes(i));
      CHECK(data->caption(i) == plain->caption(i));
      CHECK(data->field(i, "n") == plain->field(i, "n"));
    }
  }
  CHECK_THROWS_WITH(open_dataset(shards.compressed, compressed("zip")), Contains("unknown form 'zip'"));
}

TEST_CASE("streamed shards in seeded order through a seeded buffer: any workers, any ranks, taken up anywhere", "[loader]") {
  const TemporaryFolder folder;
  const Shards shards(folder);
  const auto open = [&] { return open_dataset(shards.compressed, compressed("stream")); };
  LoaderOptions one = options_of(4, 1), many = options_of(4, 4);
  one.shuffle_buffer = many.shuffle_buffer = 16;
  std::vector<LoadedBatch> whole;
  {
    const auto first = open(), second = open();
    Loader a(first, tokenizer(), one), b(second, tokenizer(), many);
    CHECK(a.batches_per_epoch() == 15);
    for (int i = 0; i < 40; ++i) {
      whole.push_back(a.next());
      check_equal(b.next(), whole.back());
    }
  }
  for (std::size_t epoch = 0; epoch < 2; ++epoch) {
    std::set<std::int64_t> seen;
    for (std::size_t i = epoch * 15; i < epoch * 15 + 15; ++i) seen.insert(whole[i].samples.begin(), whole[i].samples.end());
    CHECK(seen.size() == 60);
  }
  for (const std::size_t at : {1U, 7U, 14U, 15U, 29U}) {
    Loader later(open(), tokenizer(), many, whole[at].epoch, whole[at].index);
    for (std::size_t i = at; i < at + 10; ++i) check_equal(later.next(), whole[i]);
  }
  LoaderOptions half = many;
  half.batch_size = 2;
  half.world = 2;
  LoaderOptions other = half;
  other.rank = 1;
  Loader rank0(open(), tokenizer(), half), rank1(open(), tokenizer(), other);
  for (std::size_t i = 0; i < 20; ++i) {
    std::vector<std::int64_t> together = rank0.next().samples;
    const auto rest = rank1.next().samples;
    together.insert(together.end(), rest.begin(), rest.end());
    CHECK(together == whole[i].samples);
  }
  // Plain shards in blocks: other runs, so another order, and as complete.
  Loader plain(open_dataset(shards.plain), tokenizer(), many);
  std::set<std::int64_t> seen;
  for (int i = 0; i < 15; ++i) {
    const LoadedBatch batch = plain.next();
    seen.insert(batch.samples.begin(), batch.samples.end());
  }
  CHECK(seen.size() == 60);
}

TEST_CASE("compressed shards that are cut short or changed", "[loader]") {
  const TemporaryFolder folder;
  const Shards shards(folder);
  for (const char* name : {"s0.tar.gz", "s1.tar.zst"}) {
    const std::string whole = read_file(folder / name), ending = std::string(name).substr(3);
    for (const char* form : {"unpack", "stream"}) {
      for (const double share : {0.01, 0.3, 0.8, 0.99}) {
        INFO(name << " " << form << " " << share);
        write_text(folder / ("cut." + ending), whole.substr(0, static_cast<std::size_t>(share * static_cast<double>(whole.size()))));
        CHECK_THROWS_WITH(open_dataset(folder / ("cut." + ending), compressed(form)), Contains("damaged") && Contains("cut."));
      }
    }
    // Bytes turned over in the middle: an error, or (where no check sum covers them) other bytes; never a crash.
    for (std::size_t at = 20; at < whole.size(); at += whole.size() / 7) {
      std::string bad = whole;
      bad[at] = static_cast<char>(bad[at] ^ 0xFF);
      write_text(folder / ("bad." + ending), bad);
      try {
        const auto data = open_dataset(folder / ("bad." + ending), compressed("stream"));  // (CHECK would keep the exception)
        CHECK(data->size() <= 10);
      } catch (const Error& e) {
        CHECK_THAT(e.what(), Contains("bad."));
      }
    }
  }
  // Changed while in use: the samples are skipped with the reason, and the run ends when there are too many.
  const auto data = open_dataset(folder / "s0.tar.gz", compressed("stream"));
  write_text(folder / "s0.tar.gz", read_file(folder / "s2.tar.gz") + " ");
  LoaderOptions o = options_of(4, 2);
  o.max_skipped = 0.5;
  Loader loader(data, tokenizer(), o);
  CHECK_THROWS_WITH(loader.next(), Contains("has changed since it was indexed"));
}

TEST_CASE("where compressed shards cannot be unpacked, TMPDIR is named", "[data]") {
  const TemporaryFolder folder;
  write_text(folder / "a.tar.gz", "\x1f\x8b");
  const char* const before = std::getenv("TMPDIR");
  const std::string kept = before != nullptr ? before : "";
  for (const std::string& place : {folder / "not there", folder / "a.tar.gz"}) {
    ::setenv("TMPDIR", place.c_str(), 1);
    CHECK_THROWS_WITH(open_dataset(folder / "a.tar.gz", compressed("unpack")),
                      Contains(place) && Contains("set TMPDIR to a place with room"));
  }
  before != nullptr ? ::setenv("TMPDIR", kept.c_str(), 1) : ::unsetenv("TMPDIR");
}

TEST_CASE("captions drawn anew each epoch are the same for any number of workers", "[loader]") {
  const TemporaryFolder folder;
  Members members;
  const auto pairs = toy_pairs(12, 20);
  for (const ToyPair& pair : pairs) {
    members.emplace_back(pair.name + ".png", pair.png);
    members.emplace_back(pair.name + ".json", R"({"c": ["one", "two words", "and three words"]})");
  }
  write_tar(folder / "a.tar", members);
  const auto data = open_dataset(folder / "a.tar", with([](DatasetOptions& o) {
                                   o.json_text_key = "c";
                                   o.captions = "random";
                                 }));
  LoaderOptions one = options_of(4, 1), many = options_of(4, 3);
  one.draw_captions = many.draw_captions = true;
  Loader a(data, tokenizer(), one), b(data, tokenizer(), many);
  std::map<std::int64_t, std::set<std::size_t>> lengths;  // by sample
  for (int i = 0; i < 30; ++i) {
    const LoadedBatch batch = a.next();
    check_equal(b.next(), batch);
    for (std::size_t k = 0; k < 4; ++k) lengths[batch.samples[k]].insert(batch.captions[k].size());
  }
  std::size_t several = 0;
  for (const auto& [sample, seen] : lengths) several += seen.size() > 1 ? 1 : 0;
  CHECK(several > 8);
  // Kept apart: drawn captions count.
  one.equal_captions_apart = true;
  one.batch_size = 3;
  Loader apart(data, tokenizer(), one);
  for (int i = 0; i < 6; ++i) {
    const LoadedBatch batch = apart.next();
    CHECK(std::set<std::int64_t>(batch.caption_ids.begin(), batch.caption_ids.end()).size() == 3);
  }
}

TEST_CASE("an epoch that fills no batch without equal captions is passed over", "[loader]") {
  const TemporaryFolder folder;
  Members drawn, weighted;
  const auto pairs = toy_pairs(12, 20);
  for (std::size_t i = 0; i < pairs.size(); ++i) {
    weighted.emplace_back(pairs[i].name + ".png", pairs[i].png);
    weighted.emplace_back(pairs[i].name + ".txt", i < 9 ? "same" : std::to_string(i));
    if (i >= 6) continue;
    drawn.emplace_back(pairs[i].name + ".png", pairs[i].png);
    drawn.emplace_back(pairs[i].name + ".json", R"({"c": ["same", ")" + std::to_string(i) + R"("]})");
  }
  write_tar(folder / "drawn.tar", drawn);
  write_tar(folder / "weighted.tar", weighted);
  const auto check_passes_over = [](const std::shared_ptr<const Dataset>& data, const LoaderOptions& o) {
    std::vector<std::int64_t> full;
    std::int64_t empty_epochs = 0;
    for (std::int64_t epoch = 0; full.size() < 8; ++epoch) {
      if (EpochOrder(*data, order_options(o), epoch).size() > 0) {
        full.push_back(epoch);
      } else {
        ++empty_epochs;
      }
    }
    REQUIRE(empty_epochs > 0);
    Loader loader(data, tokenizer(), o);
    for (std::size_t i = 0; i < full.size(); ++i) {
      INFO("batch " << i);
      const LoadedBatch batch = loader.next();
      CHECK(batch.epoch == full[i]);
      CHECK(batch.last);
      CHECK(std::set<std::int64_t>(batch.caption_ids.begin(), batch.caption_ids.end()).size() == static_cast<std::size_t>(o.batch_size));
      // As a checkpoint behind that batch goes on.
      if (i + 1 < full.size()) CHECK(Loader(data, tokenizer(), o, full[i] + 1, 0).next().epoch == full[i + 1]);
    }
  };
  LoaderOptions o = options_of(3, 2);
  o.equal_captions_apart = true;
  check_passes_over(open_dataset(folder / "weighted.tar", upsampled(0.5)), o);
  o.batch_size = 5;
  o.draw_captions = true;
  const auto data = open_dataset(folder / "drawn.tar", with([](DatasetOptions& options) {
                                   options.json_text_key = "c";
                                   options.captions = "random";
                                 }));
  check_passes_over(data, o);
  o.batch_size = 7;
  CHECK_THROWS_WITH(Loader(data, tokenizer(), o), Contains("6 samples do not fill one batch of 7 with all captions different"));
}

TEST_CASE("the queue costs little beside decoding", "[.full][timed]") {
  // The same pictures decoded in a plain loop, and by the loader with one worker: turn about, the best of each.
  const TemporaryFolder folder;
  const auto pairs = toy_pairs(256, 256);
  write_tar(folder / "a.tar", members_of(pairs, 0, 256));
  const auto data = open_dataset(folder / "a.tar");
  LoaderOptions o = options_of(64, 1);
  o.image_size = 224;
  o.context_length = 77;
  double loop = 1e9, loader = 1e9;
  const auto seconds = [](auto work) {
    const auto start = std::chrono::steady_clock::now();
    work();
    return std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
  };
  for (int round = 0; round < 5; ++round) {
    loop = std::min(loop, seconds([&] {
                      for (std::int64_t i = 0; i < 256; ++i) {
                        const Image image = decode_image(data->image_bytes(i), "x", {});
                        augment(image, 224, o.augment, 3, 0, i);
                        tokenizer()->tokenize(data->caption(i), 77);
                      }
                    }));
    Loader queue(data, tokenizer(), o);
    queue.next();  // from here on no batch is ready before it is waited for
    loader = std::min(loader, seconds([&] {
                        for (int i = 0; i < 4; ++i) queue.next();
                      }));
  }
  WARN("plain loop " << 256 / loop << " pictures/s, loader with one worker " << 256 / loader << " pictures/s: " << loop / loader);
  CHECK(loader < 1.1 * loop);
}

}  // namespace
}  // namespace twinlens::test
