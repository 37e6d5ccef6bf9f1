// A small CLIP against float64 PyTorch and open_clip: features, gradients, 20 AdamW steps; a ResNet CLIP: one training step.

#include <catch2/catch.hpp>
#include <cmath>

#include "tests/support/golden.h"

#include "twinlens/clip/train_step.h"
#include "twinlens/core/autograd.h"
#include "twinlens/nn/optimizer.h"
#include "twinlens/nn/schedule.h"

namespace twinlens::test {
namespace {

// (B, 3, S, S) u8 -> (B, S, S, 3) f32, (u - 128) / 64
Tensor pixels_of(const Tensor& u8) { return affine(nchw_to_nhwc(u8).to(DType::f32), 1.0 / 64, -2.0); }

std::vector<std::vector<std::int32_t>> captions_of(const Tensor& tokens, std::int32_t end) {
  const std::vector<std::int64_t> ids = tokens.to_ints();
  std::vector<std::vector<std::int32_t>> out;
  for (std::int64_t i = 0; i < tokens.size(0); ++i) {
    std::vector<std::int32_t> caption;
    for (std::int64_t t = 0; t < tokens.size(1); ++t) {
      caption.push_back(static_cast<std::int32_t>(ids[static_cast<std::size_t>(i * tokens.size(1) + t)]));
      if (caption.back() == end) break;
    }
    out.push_back(caption);
  }
  return out;
}

PairBatch batch_of(const Tensor& images, const Tensor& tokens) {
  PairBatch batch;
  batch.pixels = pixels_of(images);
  batch.captions = captions_of(tokens, 127);
  for (std::int64_t i = 0; i < images.size(0); ++i) batch.caption_ids.push_back(i);
  return batch;
}

void load_init(Clip& model, const Golden& golden) {
  StateDict weights;
  for (const auto& [name, tensor] : state_dict(collect(model))) weights.emplace(name, golden.tensor("init." + name));
  load_state_dict(collect(model), weights);
}

// The key third of an in_proj_bias and attnpool.k_proj.bias shift softmax rows evenly: their exact gradient is zero, what any
// implementation has there is rounding noise of about 1e-8, and the bound is absolute.
void check_gradients(const Golden& golden, const Collector& model, const std::string& kind) {
  for (const NamedParameter& p : model.parameters) {
    const Tensor g = p.parameter->value.grad();
    INFO(p.name);
    REQUIRE(g.defined());
    if (p.name.find("k_proj.bias") != std::string::npos) {
      for (const float x : g.to_vector()) CHECK(std::abs(x) < 1e-6F);
      continue;
    }
    if (p.name.find("in_proj_bias") != std::string::npos) {
      const std::int64_t d = g.count() / 3;
      for (const float x : g.slice(0, d, 2 * d).to_vector()) CHECK(std::abs(x) < 1e-6F);
    }
    check_golden(golden, g, kind + "." + p.name, "err_" + kind + "." + p.name);
  }
}

TEST_CASE("20 AdamW steps follow float64 PyTorch", "[golden]") {
  const Golden golden("train20");
  const nlohmann::json about = golden_json("train20");
  const ModelConfig config = parse_model_config(about["model"].dump(), "train20.json");
  const bool plain = GENERATE(false, true);  // with the exact cuts (packing, pruning) and without
  INFO((plain ? "plain" : "packed and pruned"));
  Clip model(config, 0);
  std::get<VisionTransformer>(model.visual.body).pooled_last_block = !plain;
  load_init(model, golden);
  const Collector all = collect(model);
  FlatParameters flat(all, false);
  for (const Segment& s : flat.segments()) {
    const auto& none = about["no_weight_decay"];
    const bool listed = std::find(none.begin(), none.end(), s.name) != none.end();
    INFO(s.name);
    CHECK(s.decay == !listed);
  }
  const auto& o = about["optimizer"];
  const AdamWOptions adamw{o["beta1"].get<double>(), o["beta2"].get<double>(), o["eps"].get<double>(), o["weight_decay"].get<double>()};
  StepOptions options;
  options.pack_captions = !plain;
  StepBlock block;
  Context context;
  context.training = true;
  context.step = &block;
  const auto solo = solo_communicator();
  const std::vector<double> losses = golden.truth("losses"), rates = golden.truth("lrs");
  const Tensor images = golden.tensor("images_u8"), tokens = golden.tensor("tokens");

  {
    const PairBatch batch = batch_of(images.select(0, 0), tokens.select(0, 0));
    const NoGrad guard;
    check_golden(golden, model.encode_image(batch.pixels), "features0.image", "err_features0.image");
    const TokenBatch packed = pack_captions(batch.captions, plain ? config.text.context_length : 0);
    check_golden(golden, model.encode_text(packed), "features0.text", "err_features0.text");
  }
  for (std::int64_t s = 0; s < 20; ++s) {
    const PairBatch batch = batch_of(images.select(0, s), tokens.select(0, s));
    flat.zero_gradients();
    const double loss = forward_backward(model, batch, options, context, *solo);
    INFO("step " << s);
    CHECK(loss == Approx(losses[static_cast<std::size_t>(s)]).margin(1e-5).epsilon(0));
    if (s == 0) check_gradients(golden, all, "grad0");
    block.step = static_cast<std::uint64_t>(s);
    block.learning_rate = static_cast<float>(rates[static_cast<std::size_t>(s)]);
    adamw_step(flat, block, adamw);
    model.clamp_logit_scale();
  }
  for (const NamedParameter& p : all.parameters) {
    const std::string& name = p.name;
    const Tensor& value = p.parameter->value;
    if (name.find("in_proj_bias") == std::string::npos) {
      check_golden(golden, value, "final." + name, "err." + name);
      continue;
    }
    // AdamW turns the noise of a zero gradient into steps of up to the learning rate; the other two thirds keep the common bound.
    const std::vector<float> got = value.to_vector();
    const std::vector<double> want = golden.truth("final." + name);
    const std::size_t d = got.size() / 3;
    double qv = 0.0, norm = 0.0;
    for (std::size_t i = 0; i < got.size(); ++i) {
      const double difference = static_cast<double>(got[i]) - want[i];
      if (i >= d && i < 2 * d) {
        CHECK(std::abs(difference) < 20 * 1e-3);
      } else {
        qv += difference * difference;
        norm += want[i] * want[i];
      }
    }
    INFO(name);
    const std::string worst = "err_worst." + name + ".qv";
    CHECK(std::sqrt(qv) <= 2.0 * std::max(golden.number(golden.has(worst) ? worst : "err." + name + ".qv"), 0x1p-24 * std::sqrt(norm)));
  }
}

TEST_CASE("a ResNet CLIP follows float64 PyTorch", "[golden]") {
  const Golden golden("rn_step");
  const ModelConfig config = parse_model_config(golden_json("rn_step")["model"].dump(), "rn_step.json");
  Clip model(config, 0);
  load_init(model, golden);
  const Collector all = collect(model);
  FlatParameters flat(all, false);
  const PairBatch batch = batch_of(golden.tensor("images_u8"), golden.tensor("tokens"));
  Context context;
  context.training = true;
  const Tensor image = model.encode_image(batch.pixels, context);
  const Tensor text = model.encode_text(pack_captions(batch.captions), context);
  check_golden(golden, image, "train.image", "err_train.image");
  check_golden(golden, text, "train.text", "err_train.text");
  const auto solo = solo_communicator();
  const Tensor loss = clip_loss({image, text, model.logit_scale.value, {}}, EqualCaptions::negatives, *solo);
  check_golden(golden, loss, "train.loss", "err_train.loss");
  backward(loss);
  check_gradients(golden, all, "grad");
  for (const NamedBuffer& b : all.buffers) check_golden(golden, *b.tensor, "after." + b.name, "err_after." + b.name);
  check_golden(golden, model.encode_image(batch.pixels), "eval.image", "err_eval.image");
  check_golden(golden, model.encode_text(pack_captions(batch.captions)), "eval.text", "err_eval.text");
}

}  // namespace
}  // namespace twinlens::test
