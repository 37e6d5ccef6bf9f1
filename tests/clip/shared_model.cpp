// Several threads encode with one const Clip, as twinlens/clip/model.h allows: each has the bits that it has alone.

#include <catch2/catch.hpp>
#include <thread>

#include "tests/support/toy_data.h"

#include "twinlens/clip/model.h"
#include "twinlens/core/autograd.h"
#include "twinlens/core/ops.h"

namespace twinlens::test {
namespace {

constexpr int kThreads = 4, kRounds = 3;
constexpr std::int64_t kPairs = 5;

// Features of pictures and captions that belong to `number`.
std::vector<float> features(const Clip& model, Compute compute, int number) {
  const NoGrad no_grad;
  Context context;
  context.compute = compute;
  const std::int64_t size = model.config.vision.image_size;
  Tensor pixels = empty({kPairs, size, size, 3});
  normal_(pixels, 0.0, 1.0, 7, static_cast<std::uint64_t>(number));
  const auto end = static_cast<std::int32_t>(model.config.text.vocab_size - 1);
  std::vector<std::vector<std::int32_t>> captions;
  for (int i = 0; i < kPairs; ++i) {
    captions.push_back({end - 1});
    for (int t = 0; t < 1 + (i + number) % 4; ++t) captions.back().push_back((17 * number + 5 * i + t) % (end - 1));
    captions.back().push_back(end);
  }
  std::vector<float> all = model.encode_image(pixels, context).to_vector();
  const std::vector<float> texts = model.encode_text(batch_captions(model.config.text, captions), context).to_vector();
  all.insert(all.end(), texts.begin(), texts.end());
  return all;
}

}  // namespace

TEST_CASE("threads that encode with one model have the bits of one thread", "[model][threads]") {
  for (const std::string& json : {toy_vit_json(), toy_resnet_json()}) {
    const Clip model(parse_model_config(json, "toy"), 3);
    for (const Compute compute : {Compute::fp32, Compute::bf16}) {
      std::vector<std::vector<float>> alone;
      for (int i = 0; i < kThreads; ++i) alone.push_back(features(model, compute, i));
      REQUIRE(alone[0] != alone[1]);
      std::vector<int> equal(kThreads);  // rounds
      std::vector<std::thread> threads;
      for (int i = 0; i < kThreads; ++i) {
        threads.emplace_back([&, i] {
          for (int round = 0; round < kRounds; ++round) equal[i] += features(model, compute, i) == alone[i] ? 1 : 0;
        });
      }
      for (std::thread& t : threads) t.join();
      CHECK(equal == std::vector<int>(kThreads, kRounds));
    }
  }
}

}  // namespace twinlens::test
