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

// The library has no layer scale. x + gamma * (W h + b) is x + (gamma W) h + gamma b, so the weights of a model that has it are folded
// on the way in, and the gradients of W, b and gamma follow from those of the folded ones.
struct LayerScale {
  std::string gamma, weight, bias;
};

std::vector<LayerScale> layer_scales(const std::string& name, const Collector& model) {
  std::vector<LayerScale> out;
  for (const NamedParameter& p : model.parameters) {
    for (const auto& [layer, scale] :
         {std::pair<std::string, std::string>{"attn.out_proj.weight", "ls_1"}, {"mlp.c_proj.weight", "ls_2"}}) {
      const std::size_t at = p.name.rfind(layer);
      if (at == std::string::npos) continue;
      const std::string bias = p.name.substr(0, p.name.size() - 6) + "bias", gamma = p.name.substr(0, at) + scale + ".gamma";
      if (towers().has(name + ".param." + gamma)) out.push_back({gamma, p.name, bias});
    }
  }
  return out;
}

void check_tower(const std::string& name, const std::string& which, const Collector& all, bool image,
                 const std::function<Tensor()>& tower) {
  INFO(name << " " << which);
  const auto at = [&](const std::string& parameter) { return towers().tensor(name + ".param." + parameter); };
  const std::vector<LayerScale> scales = layer_scales(name, all);
  StateDict weights;
  for (const NamedParameter& p : all.parameters) {
    weights.emplace(p.name, p.name == "logit_scale" ? p.parameter->value.detach() : at(p.name));
  }
  for (const LayerScale& s : scales) {
    weights[s.weight] = mul(at(s.gamma).reshape({-1, 1}), at(s.weight));
    weights[s.bias] = mul(at(s.gamma), at(s.bias));
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
  for (const LayerScale& s : scales) {
    if (gradients.count(s.weight) == 0) continue;
    const Tensor w = gradients.at(s.weight), b = gradients.at(s.bias), gamma = at(s.gamma);
    gradients[s.gamma] = add(sum(mul(at(s.weight), w), {{1}, false}), mul(at(s.bias), b));
    gradients[s.weight] = mul(gamma.reshape({-1, 1}), w);
    gradients[s.bias] = mul(gamma, b);
  }
  for (const auto& [parameter, gradient] : gradients) {
    check_golden(towers(), gradient, name + ".grad_param." + parameter, name + ".err.grad_param." + parameter);
  }
}

// Every way through the towers: captions packed or padded, the last block computed for the pooled token or for all.
void check_both_towers(const std::string& name, const ModelConfig& config, std::int64_t end) {
  const Tensor images = nchw_to_nhwc(towers().tensor(name + ".in.images")), tokens = towers().tensor(name + ".in.tokens");
  for (const bool pooled : {true, false}) {
    Clip model(config, 0);
    std::get<VisionTransformer>(model.visual.body).pooled_last_block = pooled;
    const Collector all = collect(model);
    check_tower(name, "image", all, true, [&] { return model.visual(images, {}); });
    check_tower(name, "text", all, false, [&] { return model.text(captions_of(tokens, end, pooled), {}); });
  }
}

TEST_CASE("towers with QuickGELU; the first of two equal largest ids ends a caption", "[golden]") {
  const ModelConfig config = parse_model_config(golden_json("towers")["quick_gelu"].dump(), "towers.json");
  check_both_towers("quick_gelu", config, 23);
}

TEST_CASE("towers with head_width, odd hidden sizes and another end of text", "[golden]") {
  nlohmann::json json = golden_json("towers")["mlp_ratio"];
  const auto end = json["text_cfg"]["eos_id"].get<std::int64_t>();
  json["vision_cfg"].erase("ls_init_value");
  for (const char* key : {"ls_init_value", "pool_type", "eos_id"}) json["text_cfg"].erase(key);
  check_both_towers("mlp_ratio", parse_model_config(json.dump(), "towers.json"), end);
}

TEST_CASE("options that change the numbers and are not known are refused, by name") {
  const nlohmann::json all = golden_json("towers");
  for (const char* name : {"mlp_ratio", "avg_pool", "no_ln_pre"}) {
    for (const char* section : {"vision_cfg", "text_cfg"}) {
      for (const auto& [key, value] : all[name][section].items()) {
        static const std::vector<std::string> known{"image_size", "patch_size", "width",      "head_width",    "layers",
                                                    "mlp_ratio",  "heads",      "vocab_size", "context_length"};
        if (std::find(known.begin(), known.end(), key) != known.end()) continue;
        nlohmann::json json = all["quick_gelu"];
        json[section][key] = value;
        INFO(json.dump());
        CHECK_THROWS_AS(parse_model_config(json.dump(), "towers.json"), ConfigError);
        CHECK_THROWS_WITH(parse_model_config(json.dump(), "towers.json"), Catch::Contains("'" + key + "'"));
      }
    }
  }
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
