// A batch that is encoded in chunks: the same features to the bit, and the gradient of the whole batch.

#include <catch2/catch.hpp>
#include <cmath>
#include <limits>

#include "tests/support/toy_data.h"

#include "twinlens/clip/train_step.h"
#include "twinlens/core/autograd.h"
#include "twinlens/core/ops.h"
#include "twinlens/core/random.h"
#include "twinlens/kernels/error.h"
#include "twinlens/kernels/trace.h"
#include "twinlens/nn/optimizer.h"

namespace twinlens::test {
namespace {

constexpr std::int64_t kBatch = 1024;

ModelConfig tiny() {
  return parse_model_config(
      R"({"embed_dim": 24, "vision_cfg": {"image_size": 16, "layers": 2, "width": 32, "head_width": 16, "patch_size": 8},
          "text_cfg": {"context_length": 10, "vocab_size": 200, "width": 32, "heads": 2, "layers": 2}})",
      "test");
}

PairBatch batch_of(std::int64_t n) {
  PairBatch batch;
  batch.pixels = empty({n, 16, 16, 3});
  normal_(batch.pixels, 0.0, 1.0, 5, 1);
  for (std::int64_t i = 0; i < n; ++i) {
    const std::int64_t id = i % 10 == 9 ? i - 5 : i;  // some captions stand twice
    batch.captions.push_back({198, static_cast<std::int32_t>(id % 190), static_cast<std::int32_t>(id / 190 * 7), 199});
    for (std::int64_t t = 0; t < id % 5; ++t)
      batch.captions.back().insert(batch.captions.back().end() - 1, static_cast<std::int32_t>(t * 31 % 190));
    batch.caption_ids.push_back(id);
    batch.samples.push_back(1000 + 3 * i);
  }
  return batch;
}

struct Step {
  double loss = 0.0;
  std::vector<std::pair<std::string, std::vector<float>>> gradients;
};

Step step_with(double scale, std::int64_t chunk, bool stream, bool checkpoint_blocks = false, double patch_dropout = 0.0) {
  ModelConfig config = tiny();
  config.vision.patch_dropout = patch_dropout;
  Clip model(config, 3);
  FlatParameters flat(collect(model), false);
  {
    const NoGrad guard;
    model.logit_scale.value.fill_(std::log(scale));
  }
  flat.zero_gradients();
  StepBlock block;
  Context context;
  context.training = true;
  context.step = &block;
  context.checkpoint_blocks = checkpoint_blocks;
  StepOptions options;
  options.equal_captions = EqualCaptions::positives;
  options.max_chunk = chunk;
  options.stream_loss = stream;
  const auto solo = solo_communicator();
  Step out;
  out.loss = forward_backward(model, batch_of(kBatch), options, context, *solo);
  for (const Segment& s : flat.segments())
    out.gradients.emplace_back(s.name, flat.gradients.slice(0, s.offset, s.offset + s.size).to_vector());
  return out;
}

// Of a whole batch, by a loss scale of the host's or one that lies where the loss does.
std::vector<float> scaled_gradients(double of_host, const Tensor& of_device) {
  Clip model(tiny(), 3);
  FlatParameters flat(collect(model), false);
  Context context;
  context.training = true;
  StepOptions options;
  options.loss_scale = of_host;
  options.card_loss_scale = of_device;
  forward_backward(model, batch_of(64), options, context, *solo_communicator());
  return flat.gradients.to_vector();
}

void check_gradients(const Step& got, const Step& want, double bound) {
  CHECK(got.loss == Approx(want.loss).epsilon(1e-6));
  for (std::size_t k = 0; k < want.gradients.size(); ++k) {
    const auto& [name, b] = want.gradients[k];
    const std::vector<float>& a = got.gradients[k].second;
    double difference = 0.0, size = 0.0;
    for (std::size_t i = 0; i < b.size(); ++i) {
      // The keys' third of a bias has no gradient but rounding: a constant added to a row's scores changes nothing.
      if (name.find("in_proj_bias") != std::string::npos && i >= b.size() / 3 && i < 2 * b.size() / 3) continue;
      difference += std::pow(static_cast<double>(a[i]) - static_cast<double>(b[i]), 2);
      size += std::pow(static_cast<double>(b[i]), 2);
    }
    INFO(name << ": " << std::sqrt(difference / size));
    CHECK(std::sqrt(difference) <= bound * std::sqrt(size) + 1e-9);
  }
}

TEST_CASE("gradients come multiplied by the loss scale, wherever it lies", "[train]") {
  const std::vector<float> plain = scaled_gradients(1.0, {}), scaled = scaled_gradients(1024.0, {});
  CHECK(scaled_gradients(1.0, scalar(1024.0F)) == scaled);
  bool all = true;
  for (std::size_t i = 0; i < plain.size(); ++i) all = all && scaled[i] == 1024.0F * plain[i];
  CHECK(all);
}

TEST_CASE("options of a step that make no sense are refused before anything is encoded", "[train]") {
  Clip model(tiny(), 3);
  const Context context;
  const auto check_refused = [&](const StepOptions& options, const char* what) {
    CHECK_THROWS_WITH(forward_backward(model, batch_of(8), options, context, *solo_communicator()), Catch::Contains(what));
    CHECK_THROWS_AS(evaluate_loss(model, batch_of(8), options, context, *solo_communicator()), ConfigError);
    CHECK_FALSE(model.logit_scale.value.grad().defined());
  };
  for (const double share : {-0.1, 1.5, std::nan("")}) {
    StepOptions options;
    options.label_smoothing = share;
    check_refused(options, "label_smoothing is ");
  }
  for (const double scale : {0.0, -1.0, std::nan(""), std::numeric_limits<double>::infinity()}) {
    StepOptions options;
    options.loss_scale = scale;
    check_refused(options, "loss_scale is ");
  }
  StepOptions of_chunks;
  of_chunks.max_chunk = -1;
  check_refused(of_chunks, "max_chunk is -1");
  StepOptions of_sigmoids;
  of_sigmoids.loss = LossKind::sigmoid;
  of_sigmoids.label_smoothing = 0.1;
  check_refused(of_sigmoids, "only the softmax loss has label smoothing");
}

TEST_CASE("a batch without pairs, or with lists of other lengths, is refused", "[train]") {
  Clip model(tiny(), 3);
  const Context context;
  PairBatch no_caption = batch_of(8), no_id = batch_of(8), one_sample = batch_of(8);
  no_caption.captions.pop_back();
  no_id.caption_ids.pop_back();
  one_sample.samples = {1};
  for (const PairBatch& batch : {batch_of(0), no_caption, no_id, one_sample}) {
    for (const std::int64_t chunk : {0, 3}) {
      StepOptions options;
      options.max_chunk = chunk;
      CHECK_THROWS_AS(forward_backward(model, batch, options, context, *solo_communicator()), ShapeError);
      CHECK_THROWS_AS(evaluate_loss(model, batch, options, context, *solo_communicator()), ShapeError);
    }
  }
}

TEST_CASE("different captions that count as equal are each encoded", "[train]") {
  Clip model(tiny(), 3);
  const Context context;
  PairBatch batch = batch_of(12);
  for (std::size_t i = 0; i < batch.caption_ids.size(); ++i) batch.caption_ids[i] = static_cast<std::int64_t>(i % 3);
  const auto loss = [&](bool once) {
    StepOptions options;
    options.encode_equal_once = once;
    return evaluate_loss(model, batch, options, context, *solo_communicator());
  };
  CHECK(loss(true) == Approx(loss(false)).epsilon(1e-6));
}

TEST_CASE("features do not depend on the chunk, to the bit", "[train]") {
  const Clip model(tiny(), 3);
  const NoGrad guard;
  const PairBatch batch = batch_of(kBatch);
  const auto features = [&](std::int64_t chunk) {
    std::vector<float> out;
    for (std::int64_t begin = 0; begin < kBatch; begin += chunk) {
      const std::int64_t end = std::min(kBatch, begin + chunk);
      const std::vector<std::vector<std::int32_t>> captions(batch.captions.begin() + begin, batch.captions.begin() + end);
      for (const Tensor& x : {model.encode_image(batch.pixels.slice(0, begin, end)), model.encode_text(pack_captions(captions, 0))}) {
        const std::vector<float> values = x.to_vector();
        out.insert(out.end(), values.begin(), values.end());
      }
    }
    return out;
  };
  // (Images and texts of a chunk stand side by side: put in order before they are compared.)
  const auto in_order = [&](std::int64_t chunk) {
    const std::vector<float> mixed = features(chunk);
    std::vector<float> images, texts;
    const std::int64_t e = model.config.embed_dim;
    for (std::int64_t begin = 0, at = 0; begin < kBatch; begin += chunk) {
      const std::int64_t count = (std::min(kBatch, begin + chunk) - begin) * e;
      images.insert(images.end(), mixed.begin() + at, mixed.begin() + at + count);
      texts.insert(texts.end(), mixed.begin() + at + count, mixed.begin() + at + 2 * count);
      at += 2 * count;
    }
    images.insert(images.end(), texts.begin(), texts.end());
    return images;
  };
  const std::vector<float> whole = in_order(kBatch);
  CHECK(in_order(7) == whole);
  CHECK(in_order(64) == whole);
}

TEST_CASE("1024 pairs in chunks of 7 and 64 and 1024 have one gradient", "[train]") {
  for (const auto& [scale, bound] : {std::pair{14.3, 1e-6}, {100.0, 1e-5}}) {
    INFO("scale " << scale);
    const Step whole = step_with(scale, 0, true);
    for (const std::int64_t chunk : {7, 64, 1024}) {
      INFO("chunk " << chunk);
      const Step chunked = step_with(scale, chunk, true);
      CHECK(chunked.loss == whole.loss);  // equal features, equal loss
      check_gradients(chunked, whole, bound);
    }
  }
}

TEST_CASE("with patch dropout, too, chunks have the features of the whole to the bit, and its gradient", "[train]") {
  const ModelConfig config = tiny();
  const Clip model(config, 3);
  const auto features = [&](std::int64_t chunk) {
    const NoGrad guard;
    const PairBatch batch = batch_of(kBatch);
    std::vector<float> out;
    for (std::int64_t begin = 0; begin < kBatch; begin += chunk) {
      const std::int64_t end = std::min(kBatch, begin + chunk);
      const std::vector<std::int64_t> samples(batch.samples.begin() + begin, batch.samples.begin() + end);
      const std::vector<float> part =
          model.encode_image(batch.pixels.slice(0, begin, end), {}, draw_patches(samples, config.vision.patches(), 0.5, 0, 0)).to_vector();
      out.insert(out.end(), part.begin(), part.end());
    }
    return out;
  };
  const std::vector<float> whole_features = features(kBatch);
  CHECK(features(7) == whole_features);
  CHECK(features(64) == whole_features);
  for (const auto& [scale, bound] : {std::pair{14.3, 1e-6}, {100.0, 1e-5}}) {
    INFO("scale " << scale);
    const Step whole = step_with(scale, 0, true, false, 0.5);
    CHECK(whole.loss != step_with(scale, 0, true).loss);
    for (const std::int64_t chunk : {7, 64, 1024}) {
      INFO("chunk " << chunk);
      const Step chunked = step_with(scale, chunk, true, false, 0.5);
      CHECK(chunked.loss == whole.loss);
      check_gradients(chunked, whole, bound);
    }
    const Step recomputed = step_with(scale, 64, true, true, 0.5);
    CHECK(recomputed.loss == whole.loss);
    check_gradients(recomputed, whole, bound);
  }
}

TEST_CASE("the loss in tiles and the one with all logits in memory train alike", "[train]") {
  check_gradients(step_with(14.3, 0, true), step_with(14.3, 0, false), 1e-5);
  check_gradients(step_with(100.0, 64, true), step_with(100.0, 64, false), 1e-4);
}

std::int64_t calls_of(const std::string& kernel) {
  for (const KernelTime& time : kernel_times()) {
    if (time.name == kernel) return time.calls;
  }
  return 0;
}

TEST_CASE("in chunks a locked tower is encoded once, and the other learns as ever", "[train]") {
  const auto gradients = [](std::int64_t chunk, const std::string& locked) {
    Clip model(tiny(), 3);
    freeze(collect(model), [&](const std::string& name) {
      const bool of_image = name.rfind("visual.", 0) == 0;
      return locked == "image" ? of_image : !of_image && name != "logit_scale";
    });
    FlatParameters flat(collect(model), false);
    Context context;
    context.training = true;
    StepOptions options;
    options.max_chunk = chunk;
    forward_backward(model, batch_of(64), options, context, *solo_communicator());
    return flat.gradients.to_vector();
  };
  for (const std::string locked : {"image", "text"}) {
    INFO(locked);
    const std::vector<float> whole = gradients(0, locked);
    set_tracing(true);
    reset_kernel_times();
    const std::vector<float> chunked = gradients(16, locked);
    set_tracing(false);
    CHECK(calls_of("patchify_forward") == (locked == "image" ? 4 : 8));
    double difference = 0.0, size = 0.0;
    for (std::size_t i = 0; i < whole.size(); ++i) {
      difference += std::pow(static_cast<double>(chunked[i]) - static_cast<double>(whole[i]), 2);
      size += std::pow(static_cast<double>(whole[i]), 2);
    }
    CHECK(size > 0.0);
    CHECK(std::sqrt(difference) <= 1e-5 * std::sqrt(size));
  }
}

TEST_CASE("a loss that is not finite has no backward pass, in chunks neither, where that was asked for", "[train]") {
  for (const std::int64_t chunk : {0, 16}) {
    INFO("chunk " << chunk);
    Clip model(tiny(), 3);
    FlatParameters flat(collect(model), false);
    PairBatch batch = batch_of(64);
    batch.pixels.fill_(std::nan(""));
    Context context;
    context.training = true;
    StepOptions options;
    options.max_chunk = chunk;
    options.backward_if_finite = true;
    CHECK(std::isnan(forward_backward(model, batch, options, context, *solo_communicator())));
    CHECK(flat.gradient_norm() == 0.0);
  }
}

TEST_CASE("recomputed blocks give the gradient to the bit", "[train]") {
  const Step kept = step_with(14.3, 0, true), recomputed = step_with(14.3, 0, true, true);
  CHECK(kept.loss == recomputed.loss);
  for (std::size_t k = 0; k < kept.gradients.size(); ++k) {
    INFO(kept.gradients[k].first);
    CHECK(kept.gradients[k].second == recomputed.gradients[k].second);
  }
}

}  // namespace
}  // namespace twinlens::test
