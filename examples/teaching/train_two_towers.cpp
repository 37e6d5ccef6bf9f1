// CLIP in one page: draw coloured shapes, train an image tower and a text tower on them, find new drawings by their captions.

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <string>
#include <twinlens/clip/metrics.h>
#include <twinlens/clip/model.h>
#include <twinlens/clip/tokenizer.h>
#include <twinlens/clip/train_step.h>
#include <twinlens/core/autograd.h>
#include <twinlens/core/random.h>
#include <twinlens/nn/optimizer.h>
#include <twinlens/nn/schedule.h>

using namespace twinlens;

namespace {

constexpr int kSize = 32;
constexpr const char* kShapes[] = {"circle", "ring", "bar"};
constexpr struct {
  const char* name;
  std::uint8_t rgb[3];
} kColors[] = {{"red", {220, 30, 30}}, {"green", {30, 170, 60}}, {"blue", {40, 70, 220}}, {"yellow", {240, 210, 40}}};

bool covers(int shape, float x, float y) {  // the shape fills about [-1, 1]
  const float a = std::fabs(x), b = std::fabs(y);
  if (shape == 0) return x * x + y * y < 1.1F;
  if (shape == 1) return x * x + y * y < 1.1F && x * x + y * y > 0.5F;
  return a < 1.2F && b < 0.35F;
}

// One picture of every colour and shape, a little elsewhere and of another size in every round; captions tell colour and shape.
PairBatch draw(std::uint64_t round, const Tokenizer& tokenizer, int context_length) {
  PairBatch batch;
  batch.pixels = full({12, kSize, kSize, 3}, 255.0, DType::u8);
  Tensor places = empty({12, 3});
  uniform_(places, 0.0, 1.0, round, site_of("places"));
  for (int i = 0; i < 12; ++i) {
    const auto& color = kColors[i / 3];
    const float* place = places.data<float>() + 3 * i;
    const float radius = 9.0F + 4.0F * place[0], left = 14.0F + 4.0F * place[1], top = 14.0F + 4.0F * place[2];
    std::uint8_t* picture = batch.pixels.data<std::uint8_t>() + i * kSize * kSize * 3;
    for (int p = 0; p < kSize * kSize; ++p) {
      const float x = static_cast<float>(p % kSize) - left, y = static_cast<float>(p / kSize) - top;
      if (covers(i % 3, x / radius, y / radius)) std::copy(color.rgb, color.rgb + 3, picture + 3 * p);
    }
    batch.captions.push_back(tokenizer.tokenize(std::string("a ") + color.name + " " + kShapes[i % 3], context_length).ids);
    batch.caption_ids.push_back(i);
  }
  return batch;
}

}  // namespace

int main() {
  ModelConfig config;  // open_clip's keys
  config.embed_dim = 32;
  config.vision = {.layers = {2}, .width = 64, .head_width = 16, .patch_size = 8, .image_size = kSize};
  config.text = {.context_length = 16, .vocab_size = 4096, .width = 64, .heads = 4, .layers = 2};
  Clip model(config, 0);
  const auto tokenizer = clip_tokenizer({.vocab_size = config.text.vocab_size});
  FlatParameters flat(collect(model), false);

  // Recall at 1 on drawings that training never sees.
  const PairBatch unseen = draw(1'000'000, *tokenizer, config.text.context_length);
  const auto recall = [&] {
    const NoGrad guard;
    const Tensor images = model.encode_image(unseen.pixels), texts = model.encode_text(pack_captions(unseen.captions));
    return retrieval_metrics(images, texts, unseen.caption_ids).text_to_image.r1;
  };
  const double before = recall();

  const Schedule schedule{.base = 2e-3, .warmup = 10, .total = 100};
  const auto alone = solo_communicator();
  StepBlock now;
  const Context context{.training = true, .step = &now};
  double loss = 0.0;
  for (std::int64_t step = 0; step < schedule.total; ++step) {
    flat.zero_gradients();
    now.step = static_cast<std::uint64_t>(step);
    now.learning_rate = static_cast<float>(schedule(step));
    loss = forward_backward(model, draw(now.step, *tokenizer, config.text.context_length), {}, context, *alone);
    adamw_step(flat, now, {});
    model.clamp_logit_scale();
    if (step % 20 == 0 || step + 1 == schedule.total) std::printf("step %2d  loss %.3f\n", static_cast<int>(step), loss);
  }
  const double after = recall();
  std::printf("caption finds its new drawing: %.0f of 12 untrained, %.0f of 12 trained\n", 12 * before, 12 * after);
  return after >= 0.75 && after > before && loss < 1.0 ? 0 : 1;
}
