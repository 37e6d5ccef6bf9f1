// Batches that are copied ahead are those of the loader, in its order, and lie still while a step reads them.

#include <algorithm>
#include <catch2/catch.hpp>
#include <cstdlib>

#include "clip/src/card_feeder.h"
#include "tests/fake_card/fake_card.h"
#include "tests/support/temporary_folder.h"
#include "tests/support/toy_data.h"

#include "twinlens/clip/config.h"
#include "twinlens/clip/embedding.h"
#include "twinlens/kernels/error.h"
#include "twinlens/kernels/isa.h"
#include "twinlens/kernels/memory.h"
#include "twinlens/kernels/recolor.h"
#include "twinlens/kernels/resize.h"
#include "twinlens/kernels/tone.h"

namespace twinlens::test {
namespace {

constexpr Device kCard{DeviceType::cuda, 0};

struct Toys {
  TemporaryFolder folder;
  std::shared_ptr<const Dataset> data;
  std::shared_ptr<const Tokenizer> tokenizer;
  LoaderOptions options;
  bool on_card = false;  // --device-transforms

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
    o.device_transforms = pinned && on_card;
    return std::make_unique<Loader>(data, tokenizer, o);
  }
};

const Shape kPixels{8, 32, 32, 3};

int largest_difference(const Tensor& x, const Tensor& y) {
  int largest = 0;
  const auto *a = x.data<std::uint8_t>(), *b = y.data<std::uint8_t>();
  for (std::int64_t i = 0; i < x.count(); ++i) largest = std::max(largest, std::abs(int{a[i]} - int{b[i]}));
  return largest;
}

// Steps that do nothing but keep what they were given, when the card comes to them.
// `most` levels of a value may be between what the card made and what the CPU does.
void check_feeder(const Toys& toys, std::int64_t ahead, bool prefetches, int most = 0) {
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
    CHECK(largest_difference(seen[i], want.pixels) <= most);
    CHECK(batches[i].captions == want.captions);
    CHECK(batches[i].samples == want.samples);
    CHECK(batches[i].epoch == want.epoch);
    CHECK(batches[i].last == want.last);
  }
}

}  // namespace

TEST_CASE("the ring gives the loader's batches and keeps them while they are read", "[fake]") {
  for (const std::int64_t ahead : {1, 2, 5}) {
    check_feeder(Toys(), ahead, true);
    check_feeder(Toys(), ahead, false);
  }
}

TEST_CASE("pictures that a card crops, resizes, flips and recolours are those of the CPU", "[fake]") {
  set_fake_kernel_of<Resize, Scalar>();
  set_fake_kernel_of<WarpAffine, Scalar>();
  set_fake_kernel_of<Recolor, Scalar>();
  set_fake_kernel_of<MeanLuma, Scalar>();
  set_fake_kernel_of<ToneCurve, Scalar>();
  set_fake_kernel_of<Sharpness, Scalar>();
  Toys toys;
  toys.on_card = true;
  AugmentOptions& a = toys.options.augment;
  a.scale = {0.2, 1.0};
  a.flip_probability = 0.5;
  check_feeder(toys, 2, true);
  a.gamma = 0.5;
  a.invert_probability = 0.3;
  check_feeder(toys, 2, true);
  // Pictures that change place once, twice and three times.
  a.sharpness_probability = 0.5;
  a.sharpness = {0.0, 2.0};
  check_feeder(toys, 1, true, 1);
  a.gamma = a.invert_probability = 0.0;  // (a curve makes more of one level)
  a.rotate_degrees = 20.0;
  a.translate = 0.1;
  a.zoom = {0.8, 1.2};
  a.gray_probability = 0.3;
  check_feeder(toys, 2, true, 1);
  a.jitter_probability = 0.7;
  a.brightness = a.saturation = 0.3;
  a.hue = 0.1;
  check_feeder(toys, 3, false, 1);
  a.contrast = 0.3;
  check_feeder(toys, 2, true, 1);
  // With the same instruction set on both sides there is nothing between them.
  const Isa best = active_isa();
  set_active_isa(Isa::scalar);
  check_feeder(toys, 2, true);
  set_active_isa(best);
  synchronize(current_stream(kCard));
  fake_card().bodies.clear();
}

TEST_CASE("pictures that a card crops and resizes for evaluation are those of the CPU", "[fake]") {
  set_fake_kernel_of<Resize, Scalar>();
  std::vector<std::string> bytes, names;
  const int sizes[][2] = {{40, 90}, {300, 31}, {32, 32}, {7, 5}, {100, 33}};
  for (const auto& size : sizes) {
    std::vector<std::uint8_t> rgb(static_cast<std::size_t>(size[0] * size[1] * 3));
    for (std::size_t i = 0; i < rgb.size(); ++i) rgb[i] = static_cast<std::uint8_t>(i * 73 + i / 7 * 31);
    bytes.push_back(encode_png(rgb, size[0], size[1]));
    names.push_back(std::to_string(names.size()));
  }
  bytes.insert(bytes.begin() + 2, "no picture");
  names.insert(names.begin() + 2, "bad");
  for (const char* mode : {"shortest", "squash"}) {
    ModelConfig config = parse_model_config(toy_vit_json(), "test");
    config.preprocess.resize_mode = mode;
    Clip model(config, 1);
    const LoadedPictures want = load_pictures(model, bytes, names, {});
    EmbedOptions options;
    options.device_transforms = true;
    CHECK_THROWS_WITH(load_pictures(model, bytes, names, options), Catch::Contains("--device-transforms is for a card; --device cpu"));
    move_to(model, kCard);
    const LoadedPictures got = load_pictures(model, bytes, names, options);
    CHECK(got.pixels.device() == kCard);
    CHECK(got.kept == want.kept);
    REQUIRE(got.skipped.size() == 1);
    CHECK(got.skipped[0].key == "bad");
    CHECK(largest_difference(got.pixels.to(kCpu), want.pixels) == 0);
    model.config.preprocess.resize_mode = "longest";
    CHECK_THROWS_WITH(load_pictures(model, bytes, names, options), Catch::Contains("--device-transforms has no padding"));
  }
  fake_card().bodies.clear();
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

TEST_CASE("a kernel that cannot be launched does not give pinned memory back before it is read", "[fake]") {
  fake_card().bodies[Resize::kName] = [](const void*) -> std::function<void()> { throw Error("no launch"); };
  Toys toys;
  toys.on_card = true;
  const auto loader = toys.loader(true);
  {
    CardFeeder feeder(*loader, kPixels, kCard, 2);
    synchronize(current_stream(kCard));
    CHECK_THROWS_WITH(feeder.next(), "no launch");
    fake_card().event_waits = 0;
  }
  CHECK(fake_card().event_waits == 1);
  fake_card().bodies.clear();
}

}  // namespace twinlens::test
