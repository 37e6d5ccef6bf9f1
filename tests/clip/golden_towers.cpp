// Both towers of tiny CLIPs against float64 open_clip: features, which are not normalised here, and gradients of all parameters.

#include <algorithm>
#include <catch2/catch.hpp>
#include <cmath>
#include <functional>

#include "tests/support/golden.h"

#include "twinlens/clip/model.h"
#include "twinlens/core/autograd.h"
#include "twinlens/kernels/error.h"

namespace twinlens::test {
namespace {

const Golden& towers() {
  static const Golden golden("towers");
  return golden;
}

// Captions up to the first token that ends them; whole rows when `packed` is off, which a causal tower must not notice.
TokenBatch captions_of(const Tensor& tokens, std::int64_t end, bool packed) {
  const std::int64_t n = tokens.size(0), length = tokens.size(1);
  const std::vector<std::int64_t> ids = tokens.to_ints();
  std::vector<std::vector<std::int32_t>> captions;
  std::vector<std::int64_t> last;
  for (std::int64_t i = 0; i < n; ++i) {
    const auto row = ids.begin() + i * length;
    const auto stop = std::find(row, row + length, end) + 1;
    captions.emplace_back(row, packed ? stop : row + length);
    last.push_back(i * length + (stop - row) - 1);
  }
  TokenBatch batch = pack_captions(captions);
  if (packed) return batch;
  batch.last = from_vector(last, {n});
  batch.packed = false;
  return batch;
}

// The rows as they are.
TokenBatch whole_rows(const TextConfig& config, const Tensor& tokens) {
  const std::int64_t n = tokens.size(0), length = tokens.size(1);
  const std::vector<std::int64_t> ids = tokens.to_ints();
  std::vector<std::vector<std::int32_t>> captions;
  for (std::int64_t i = 0; i < n; ++i) captions.emplace_back(ids.begin() + i * length, ids.begin() + (i + 1) * length);
  return batch_captions(config, captions);
}

void check_tower(const std::string& name, const std::string& which, const Collector& all, bool image,
                 const std::function<Tensor()>& tower) {
  INFO(name << " " << which);
  const auto at = [&](const std::string& parameter) { return towers().tensor(name + ".param." + parameter); };
  StateDict weights;
  for (const NamedParameter& p : all.parameters) {
    weights.emplace(p.name, p.name == "logit_scale" ? p.parameter->value.detach() : at(p.name));
  }
  load_state_dict(all, weights);
  const Tensor y = tower();
  check_golden(towers(), y, name + ".out." + which, name + ".err.out." + which);
  backward(y, towers().tensor(name + ".grad_out." + which));

  StateDict gradients;
  for (const NamedParameter& p : all.parameters) {
    const bool is_image = p.name.rfind("visual.", 0) == 0;
    if (p.name == "logit_scale" || is_image != image) continue;
    INFO(p.name);
    REQUIRE(p.parameter->value.grad().defined());
    gradients[p.name] = p.parameter->value.grad();
  }
  for (const auto& [parameter, gradient] : gradients) {
    check_golden(towers(), gradient, name + ".grad_param." + parameter, name + ".err.grad_param." + parameter);
  }
}

// Every way through the towers: captions packed or padded, the last block computed for the token that is read or for all.
void check_both_towers(const std::string& name, std::int64_t end) {
  const ModelConfig config = parse_model_config(golden_json("towers")[name].dump(), "towers.json");
  const Tensor images = nchw_to_nhwc(towers().tensor(name + ".in.images")), tokens = towers().tensor(name + ".in.tokens");
  for (const bool pooled : {true, false}) {
    Clip model(config, 0);
    std::get<VisionTransformer>(model.visual.body).pooled_last_block = pooled;
    model.text.pooled_last_block = pooled;
    const Collector all = collect(model);
    check_tower(name, "image", all, true, [&] { return model.visual(images, {}); });
    const TokenBatch captions = config.text.needs_no_padding() ? captions_of(tokens, end, pooled) : whole_rows(config.text, tokens);
    check_tower(name, "text", all, false, [&] { return model.text(captions, {}); });
  }
}

TEST_CASE("towers with QuickGELU; the first of two equal largest ids ends a caption", "[golden]") { check_both_towers("quick_gelu", 23); }

TEST_CASE("towers with head_width, odd hidden sizes, layer scale and another end of text", "[golden]") {
  check_both_towers("mlp_ratio", 2);
}

TEST_CASE("towers that average, without causal mask, read at the last position, with a biased projection", "[golden]") {
  check_both_towers("avg_pool", 23);
}

TEST_CASE("towers without ln_pre, without causal mask, read at the first position", "[golden]") { check_both_towers("no_ln_pre", 23); }

TEST_CASE("options that change the numbers and are not known are refused, by name") {
  const std::pair<const char*, nlohmann::json> unknown[] = {
      {"vision_cfg", {{"pool_type", "none"}}},    {"vision_cfg", {{"qk_norm", true}}},
      {"vision_cfg", {{"block_type", "custom"}}}, {"vision_cfg", {{"timm_model_name", "vit_base_patch16_224"}}},
      {"vision_cfg", {{"output_tokens", true}}},  {"vision_cfg", {{"surprise", 1}}},
      {"text_cfg", {{"pool_type", "cls"}}},       {"text_cfg", {{"embed_cls", true}}},
      {"text_cfg", {{"proj_type", "none"}}},      {"text_cfg", {{"hf_model_name", "roberta-base"}}},
      {"text_cfg", {{"scale_fc", true}}},         {"vision_cfg", {{"ls_init_value", 0.0}}},
      {"text_cfg", {{"ls_init_value", 0}}}};
  for (const auto& [section, addition] : unknown) {
    nlohmann::json json = golden_json("towers")["quick_gelu"];
    json[section].update(addition);
    const std::string key = addition.begin().key();
    INFO(json.dump());
    CHECK_THROWS_AS(parse_model_config(json.dump(), "towers.json"), ConfigError);
    CHECK_THROWS_WITH(parse_model_config(json.dump(), "towers.json"), Catch::Contains(key));
  }
}

TEST_CASE("keys at the values that mean what is built are accepted") {
  nlohmann::json json = golden_json("towers")["quick_gelu"];
  const ModelConfig plain = parse_model_config(json.dump(), "towers.json");
  json["vision_cfg"].update({{"block_type", "default"}, {"qk_norm", false}});
  json["text_cfg"].update({{"block_type", nullptr}, {"proj_type", "linear"}});
  CHECK(to_json(parse_model_config(json.dump(), "towers.json")) == to_json(plain));
}

// CLIP's pooling of a ResNet's last feature map; one query, the mean of all places.
TEST_CASE("AttentionPool2d", "[golden]") {
  const Golden layers("layers");
  const std::string name = "attention_pool2d";
  Tensor x = layers.tensor(name + ".in.x").set_requires_grad(true);  // (3, 16, 2, 2)
  AttentionPool2d pool(2, 16, golden_json("layers")[name]["heads"].get<int>(), 6);
  const Collector all = collect(pool);
  StateDict weights;
  for (const NamedParameter& p : all.parameters) weights.emplace(p.name, layers.tensor(name + ".param." + p.name));
  load_state_dict(all, weights);
  const Tensor y = pool(nchw_to_nhwc(x), {});
  check_golden(layers, y, name + ".out.y", name + ".err.out.y");
  backward(y, layers.tensor(name + ".grad_out.y"));
  check_golden(layers, x.grad(), name + ".grad_in.x", name + ".err.grad_in.x");
  for (const NamedParameter& p : all.parameters) {
    const Tensor& g = p.parameter->value.grad();
    if (p.name == "k_proj.bias") {  // exactly zero: it shifts a softmax row evenly
      for (const float v : g.to_vector()) CHECK(std::abs(v) < 1e-6F);
      continue;
    }
    check_golden(layers, g, name + ".grad_param." + p.name, name + ".err.grad_param." + p.name);
  }
}

}  // namespace
}  // namespace twinlens::test
