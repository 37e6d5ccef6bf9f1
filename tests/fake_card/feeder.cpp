// Batches that are copied ahead are those of the loader, in its order, and lie still while a step reads them.

#include <catch2/catch.hpp>
#include <cstring>

#include "clip/src/card_feeder.h"
#include "tests/fake_card/fake_card.h"
#include "tests/support/temporary_folder.h"
#include "tests/support/toy_data.h"

#include "twinlens/clip/config.h"
#include "twinlens/clip/embedding.h"
#include "twinlens/kernels/error.h"
#include "twinlens/kernels/memory.h"

namespace twinlens::test {
namespace {

constexpr Device kCard{DeviceType::cuda, 0};

struct Toys {
  TemporaryFolder folder;
  std::shared_ptr<const Dataset> data;
  std::shared_ptr<const Tokenizer> tokenizer;
  LoaderOptions options;

  Toys() {
    write_toy_folder(folder / "data", toy_pairs(40));
    data = open_dataset(folder / "data", {});
    tokenizer = tokenizer_of(parse_model_config(toy_vit_json(), "test"), "");
    options.batch_size = 8;
    options.image_size = 32;
    options.context_length = 16;
    options.workers = 2;
  }
  std::unique_ptr<Loader> loader(bool pinned) const {
    LoaderOptions o = options;
    o.pinned = pinned;
    return std::make_unique<Loader>(data, tokenizer, o);
  }
};

const Shape kPixels{8, 32, 32, 3};

std::vector<std::uint8_t> bytes_of(const Tensor& x) {
  const auto* p = x.data<std::uint8_t>();
  return {p, p + x.count()};
}

// Steps that do nothing but keep what they were given, when the card comes to them.
void check_feeder(std::int64_t ahead, bool prefetches) {
  const Toys toys;
  const auto plain = toys.loader(false), pinned = toys.loader(true);
  CardFeeder feeder(*pinned, kPixels, kCard, ahead);
  Stream& work = current_stream(kCard);
  const std::int64_t steps = 23, pageable = fake_card().pageable_copies, waits = fake_card().waits;
  std::vector<Tensor> seen;
  std::vector<LoadedBatch> batches;
  for (std::int64_t i = 0; i < steps; ++i) {
    batches.push_back(feeder.next());
    seen.push_back(empty_pinned(kPixels, DType::u8));
    copy_pinned(work, seen.back().raw(), batches.back().pixels.raw(), static_cast<std::size_t>(kPixels.count()));
    if (prefetches) feeder.prefetch();
  }
  CHECK(fake_card().pageable_copies == pageable);
  CHECK(fake_card().waits == waits);
  synchronize(work);
  for (std::size_t i = 0; i < seen.size(); ++i) {
    const LoadedBatch want = plain->next();
    INFO(ahead << " ahead, step " << i);
    CHECK(bytes_of(seen[i]) == bytes_of(want.pixels));
    CHECK(batches[i].captions == want.captions);
    CHECK(batches[i].samples == want.samples);
    CHECK(batches[i].epoch == want.epoch);
    CHECK(batches[i].last == want.last);
  }
}

}  // namespace

TEST_CASE("the ring gives the loader's batches and keeps them while they are read", "[fake]") {
  for (const std::int64_t ahead : {1, 2, 5}) {
    check_feeder(ahead, true);
    check_feeder(ahead, false);
  }
}

TEST_CASE("an error of the loader comes out with its batch", "[fake]") {
  Toys toys;
  write_text(toys.folder / "data/13.png", "no picture");
  toys.data = open_dataset(toys.folder / "data", {});
  toys.options.max_skipped = 0.0;
  const auto plain = toys.loader(false), pinned = toys.loader(true);
  std::int64_t good = 0;
  const auto count = [&](auto&& next) {
    std::int64_t n = 0;
    try {
      while (true) {
        next();
        ++n;
      }
    } catch (const FileError&) {
    }
    return n;
  };
  good = count([&] { plain->next(); });
  CardFeeder feeder(*pinned, kPixels, kCard, 3);
  CHECK(count([&] {
          feeder.next();
          feeder.prefetch();
        }) == good);
}

}  // namespace twinlens::test
