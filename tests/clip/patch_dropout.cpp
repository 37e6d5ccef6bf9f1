// Patch dropout: open_clip's and timm's towers told which patches to keep, and the rule by which they are drawn.

#include <algorithm>
#include <catch2/catch.hpp>
#include <cmath>
#include <nlohmann/json.hpp>
#include <set>

#include "clip/src/formats/layout.h"
#include "tests/support/golden.h"
#include "tests/support/temporary_folder.h"
#include "tests/support/toy_data.h"
#include "tests/support/toy_training.h"

#include "twinlens/clip/trainer.h"
#include "twinlens/core/autograd.h"
#include "twinlens/core/file.h"
#include "twinlens/core/random.h"
#include "twinlens/core/safetensors.h"
#include "twinlens/kernels/dry_run.h"
#include "twinlens/kernels/error.h"

namespace twinlens::test {
namespace {

using Catch::Contains;

TEST_CASE("image towers that see some patches follow open_clip and timm", "[golden]") {
  const Golden golden("patch_dropout");
  const auto cases = golden_json("patch_dropout");
  for (const auto& [name, json] : cases.items()) {
    for (const bool pooled : {true, false}) {
      INFO(name);
      const ModelConfig config = parse_model_config(json.dump(), "patch_dropout.json");
      CHECK(parse_model_config(to_json(config), "again").vision.patch_dropout == 0.6);
      Clip model(config, 0);
      std::get<VisionTransformer>(model.visual.body).pooled_last_block = pooled;
      const Collector all = collect(model);
      const std::vector<LayoutPiece> pieces = layout_pieces(Layout::open_clip, config);
      StateDict theirs = to_layout(pieces, state_dict(all));
      for (auto& [parameter, tensor] : theirs) {
        if (const std::string at = name + ".param." + parameter; golden.has(at)) tensor = golden.tensor(at);
      }
      load_state_dict(all, from_layout(pieces, theirs));
      const Tensor kept = golden.tensor(name + ".in.kept");
      CHECK(kept.size(1) == patches_kept(config.vision.patches(), 0.6));
      const PatchSelection patches = select_patches(kept.to_ints(), kept.size(1), config.vision.patches());
      const Tensor y = model.visual(nchw_to_nhwc(golden.tensor(name + ".in.images")), {}, patches);
      check_golden(golden, y, name + ".out.image", name + ".err.out.image");
      backward(y, golden.tensor(name + ".grad_out.image"));
      StateDict gradients;
      for (const NamedParameter& p : all.parameters) {
        const Tensor& g = p.parameter->value.grad();
        gradients[p.name] = g.defined() ? g : zeros(p.parameter->value.shape());
      }
      for (const auto& [parameter, gradient] : to_layout(pieces, gradients)) {
        const std::string at = name + ".grad_param." + parameter;
        if (golden.has(at)) check_golden(golden, gradient, at, name + ".err.grad_param." + parameter);
      }
    }
  }
}

ModelConfig config_with(double dropout) {
  ModelConfig config = parse_model_config(toy_vit_json(), "toy");
  config.vision.patch_dropout = dropout;
  config.validate();
  return config;
}

TEST_CASE("all patches chosen are all patches, to the bit") {
  const Clip model(config_with(0.5), 1);
  const NoGrad guard;
  Tensor images = empty({3, 32, 32, 3});
  normal_(images, 0.0, 1.0, 3, 1);
  const PatchSelection all = draw_patches({4, 5, 6}, model.config.vision.patches(), 0.0, 1, 2);
  CHECK(model.encode_image(images, {}, all).to_vector() == model.encode_image(images).to_vector());
  const PatchSelection other = draw_patches({4, 5}, model.config.vision.patches(), 0.0, 1, 2);
  CHECK_THROWS_WITH(model.encode_image(images, {}, other), Contains("chosen for every picture"));
}

TEST_CASE("the patches that are kept are a function of seed, step and sample, and all sets are as likely") {
  CHECK(patches_kept(49, 0.5) == 24);
  CHECK(patches_kept(196, 0.75) == 49);
  CHECK(patches_kept(4, 0.99) == 1);
  std::vector<std::int64_t> samples(4000);
  for (std::size_t i = 0; i < samples.size(); ++i) samples[i] = static_cast<std::int64_t>(i) * 7;
  const auto draw = [](const std::vector<std::int64_t>& of, std::uint64_t seed, std::uint64_t step) {
    return draw_patches(of, 10, 0.5, seed, step).places.to_ints();
  };
  const auto places = draw(samples, 1, 2);
  REQUIRE(places.size() == 20'000);
  CHECK(draw(samples, 1, 2) == places);
  CHECK(draw(samples, 1, 3) != places);
  CHECK(draw(samples, 2, 2) != places);
  // One picture draws the same in any company.
  CHECK(draw({samples[17]}, 1, 2) == std::vector<std::int64_t>(places.begin() + 85, places.begin() + 90));
  // 252 sets of 5 of 10, 4,000 draws: chi square of 251 degrees of freedom is below 335 in 99.97 of 100 cases.
  std::map<std::vector<std::int64_t>, int> seen;
  for (std::size_t i = 0; i < places.size(); i += 5)
    ++seen[{places.begin() + static_cast<long>(i), places.begin() + static_cast<long>(i) + 5}];
  CHECK(seen.size() == 252);
  double chi = 0.0;
  for (const auto& [set, count] : seen) chi += std::pow(count - 4000.0 / 252.0, 2) / (4000.0 / 252.0);
  CHECK(chi < 335.0);
  const PatchSelection selection = draw_patches({3, 3}, 10, 0.5, 1, 2);
  const auto own = selection.places.to_ints(), rows = selection.rows.to_ints();
  for (std::size_t i = 0; i < 10; ++i) CHECK(rows[i] == own[i] + (i < 5 ? 0 : 10));
  CHECK_THROWS_WITH(select_patches({1, 1}, 2, 4), Contains("rising order"));
  CHECK_THROWS_WITH(select_patches({3, 4}, 2, 4), Contains("4 patches"));
}

TEST_CASE("patches are not drawn of none, nor by what is no share") {
  CHECK_THROWS_AS(draw_patches({1, 2}, 0, 0.5, 1, 1), ShapeError);
  CHECK_THROWS_AS(draw_patches({1, 2}, 4, -1.0, 1, 1), ShapeError);
  CHECK_THROWS_AS(draw_patches({1, 2}, 4, 1.0, 1, 1), ShapeError);
  CHECK_THROWS_WITH(patches_kept(4, std::nan("")), Contains("give at least 1 patch and a share in [0, 1)"));
}

TEST_CASE("patches that are left out take no memory") {
  Clip model(parse_model_config(R"({"embed_dim": 64, "vision_cfg": {"image_size": 128, "layers": 4, "width": 64, "head_width": 32,
      "patch_size": 8}, "text_cfg": {"context_length": 8, "vocab_size": 1000, "width": 32, "heads": 2, "layers": 1}})",
                                "test"),
             1);
  const auto peak = [&](double dropout) {
    const DryRun dry;
    const Tensor images = empty({64, 128, 128, 3}, DType::u8);
    const PatchSelection patches = draw_patches(std::vector<std::int64_t>(64, 1), 256, dropout, 1, 1);
    const Tensor features = model.encode_image(images, {}, dropout > 0.0 ? patches : PatchSelection{});
    return static_cast<double>(dry.bytes(kCpu)) - 64.0 * 128 * 128 * 3;
  };
  // (The patches of all pixels are there for a moment, and are not kept.)
  CHECK(peak(0.75) < 0.27 * peak(0.0));
}

TEST_CASE("training with patch dropout: chunks, a stop and evaluation", "[train]") {
  const TemporaryFolder folder;
  TrainOptions o = toy_training(folder, toy_pairs(26));
  o.batch_size = 13;
  o.epochs = 3;
  o.lr = 1e-3;
  o.log_every_n_steps = 1;
  o.force_patch_dropout = 0.5;
  const auto losses = [&](const std::string& name) {
    std::vector<double> out;
    std::istringstream lines(read_file(folder / ("logs/" + name + "/metrics.jsonl")));
    for (std::string line; std::getline(lines, line);) out.push_back(nlohmann::json::parse(line)["loss"].get<double>());
    return out;
  };
  const auto run = [&](const std::string& name) {
    o.name = name;
    train(o);
    return losses(name);
  };
  const auto whole = run("whole");
  o.max_chunk = 5;
  const auto chunked = run("chunked");
  o.max_chunk = 0;
  REQUIRE(whole.size() == 6);
  CHECK(chunked[0] == whole[0]);  // equal features
  for (std::size_t i = 0; i < whole.size(); ++i) CHECK(chunked[i] == Approx(whole[i]).epsilon(1e-4));
  const ModelConfig kept = find_model_config(folder / "logs/whole/model");
  CHECK(kept.vision.patch_dropout == 0.5);

  // A run that was stopped draws on as one that was not.
  o.save_every_steps = 3;
  o.keep_last = 10;
  run("stopped");
  std::filesystem::remove_all(folder / "logs/stopped/checkpoints/step_6");
  std::filesystem::remove_all(folder / "logs/stopped/checkpoints/step_4");
  const std::string weights = read_file(folder / "logs/stopped/model/open_clip_model.safetensors");
  CHECK(weights == read_file(folder / "logs/whole/model/open_clip_model.safetensors"));
  o.resume = "latest";
  run("stopped");
  CHECK(read_file(folder / "logs/stopped/model/open_clip_model.safetensors") == weights);
  o.resume.clear();

  o.force_patch_dropout = 0.0;
  CHECK(run("all_patches")[0] != whole[0]);
  o.force_patch_dropout = 1.0;
  CHECK_THROWS_WITH(run("none"), Contains("patch_dropout") && Contains("less than 1"));
  o.force_patch_dropout = 0.5;
  write_text(folder / "model.json", toy_resnet_json());
  CHECK_THROWS_WITH(run("resnet"), Contains("a ResNet has no patches"));
}

}  // namespace
}  // namespace twinlens::test
