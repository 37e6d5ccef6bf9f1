// What is built in by name, its costs, its names, and the image towers that pool by attention.

#include <catch2/catch.hpp>
#include <cmath>
#include <functional>
#include <nlohmann/json.hpp>
#include <set>

#include "clip/src/formats/layout.h"
#include "clip/src/formats/resize_positions.h"
#include "tests/support/golden.h"
#include "tests/support/memory_runs.h"

#include "twinlens/clip/blend.h"
#include "twinlens/clip/embedding.h"
#include "twinlens/clip/layer_groups.h"
#include "twinlens/clip/model.h"
#include "twinlens/clip/model_cost.h"
#include "twinlens/core/autograd.h"
#include "twinlens/kernels/error.h"

namespace twinlens::test {
namespace {

using Json = nlohmann::json;

TEST_CASE("models: parameters and GFLOPs are those of open_clip, for every name") {
  const Json profile = golden_json("model_profile");
  int compared = 0;
  for (const std::string& name : builtin_model_names()) {
    INFO(name);
    const ModelConfig config = *builtin_model_config(name);
    const ModelCost cost = model_cost(config);
    REQUIRE(profile.contains(name));
    const Json& row = profile.at(name);
    CHECK(cost.image_parameters == row.at("image_parameters").get<std::int64_t>());
    CHECK(cost.text_parameters == row.at("text_parameters").get<std::int64_t>());
    ++compared;
    if (!row.contains("image_gflops")) continue;
    // Two decimals there.
    CHECK(std::abs(cost.image_gflops - row.at("image_gflops").get<double>()) < 0.00501);
    CHECK(std::abs(cost.text_gflops - row.at("text_gflops").get<double>()) < 0.00501);
  }
  CHECK(compared >= 70);
}

TEST_CASE("models: a config written and read again is the same, for every name") {
  for (const std::string& name : builtin_model_names()) {
    INFO(name);
    const std::string text = to_json(*builtin_model_config(name));
    CHECK(to_json(parse_model_config(text, name)) == text);
  }
}

TEST_CASE("models: OpenAI's own names") {
  for (const char* name : {"RN50", "RN101", "RN50x4", "RN50x16", "RN50x64", "ViT-B/32", "ViT-B/16", "ViT-L/14", "ViT-L/14@336px"}) {
    INFO(name);
    CHECK(builtin_model_config(name).has_value());
  }
}

// Small ones of every kind.
std::vector<std::pair<std::string, ModelConfig>> small_models() {
  const std::string text = R"("text_cfg":{"context_length":9,"vocab_size":24,"width":12,"heads":3,"layers":2)";
  const std::string vit = R"("vision_cfg":{"image_size":12,"patch_size":4,"width":12,"head_width":4,"layers":2)";
  const auto config = [](const std::string& json) { return parse_model_config(json, "small"); };
  std::vector<std::pair<std::string, ModelConfig>> out;
  out.emplace_back("vit", config(R"({"embed_dim":8,)" + vit + "}," + text + "}}"));
  out.emplace_back("quick gelu", config(R"({"embed_dim":8,"quick_gelu":true,)" + vit + "}," + text + "}}"));
  out.emplace_back("clipa", config(R"({"embed_dim":8,)" + vit + R"(,"no_ln_pre":true,"pool_type":"avg","final_ln_after_pool":true},)" +
                                   text + R"(,"no_causal_mask":true,"pool_type":"last"}})"));
  out.emplace_back("layer scale", config(R"({"embed_dim":8,)" + vit + R"(,"ls_init_value":0.1},)" + text + R"(,"ls_init_value":0.1}})"));
  out.emplace_back("pooler", config(R"({"embed_dim":8,)" + vit +
                                    R"(,"attentional_pool":true,"attn_pooler_queries":3,"attn_pooler_heads":2},)" + text + "}}"));
  out.emplace_back("square pooler", config(R"({"embed_dim":12,)" + vit +
                                           R"(,"attentional_pool":true,"attn_pooler_queries":3,"attn_pooler_heads":2},)" + text + "}}"));
  out.emplace_back("resnet",
                   config(R"({"embed_dim":8,"vision_cfg":{"image_size":64,"layers":[1,2,1,1],"width":4,"head_width":32},)" + text + "}}"));
  out.emplace_back(
      "siglip",
      config(R"({"embed_dim":12,"custom_text":true,"init_logit_bias":-10,"vision_cfg":{"image_size":12,"patch_size":4,"width":12,)"
             R"("head_width":4,"layers":2,"timm_model_name":"vit_custom_patch4_siglip_12"},)" +
             text + R"(,"no_causal_mask":true,"pool_type":"last","proj_bias":true}})"));
  return out;
}

TEST_CASE("models: the names of parameters, without and with a model; its counted parameters") {
  for (const auto& [label, config] : small_models()) {
    INFO(label);
    Clip model(config, 1);
    const Collector all = collect(model);
    std::vector<std::string> names, buffers;
    for (const NamedParameter& p : all.parameters) names.push_back(p.name);
    for (const NamedBuffer& b : all.buffers) buffers.push_back(b.name);
    const std::vector<std::string> expected = parameter_names(config);
    CHECK(std::set<std::string>(names.begin(), names.end()) == std::set<std::string>(expected.begin(), expected.end()));
    CHECK(names.size() == expected.size());
    CHECK(buffers.size() == buffer_names(config).size());
    CHECK(count_parameters(all) == model_cost(config).parameters());
  }
}

TEST_CASE("models: what open_clip does not look at in a trunk of timm changes nothing; what it takes for a missing key is refused") {
  Json json{{"embed_dim", 768},
            {"vision_cfg", {{"timm_model_name", "vit_base_patch16_siglip_224"}, {"timm_pool", "map"}, {"timm_proj", "none"}}},
            {"text_cfg", {{"layers", 1}}}};
  const auto parsed = [&](const Json& vision) {
    Json with = json;
    with["vision_cfg"].update(vision);
    return parse_model_config(with.dump(), "here");
  };
  const std::string plain = to_json(parsed(Json::object()));
  for (const Json& ignored : {Json{{"ls_init_value", 0.1}}, Json{{"attentional_pool", true}}, Json{{"pos_embed_type", "sin_cos_2d"}},
                              Json{{"pool_type", "avg"}}, Json{{"final_ln_after_pool", true}}, Json{{"width", 64}}}) {
    INFO(ignored.dump());
    const ModelConfig config = parsed(ignored);
    CHECK(to_json(config) == plain);
    CHECK(config.vision.ls_init_value == 0.0);
    CHECK((!config.vision.attentional_pool && config.vision.pos_embed_type == "learnable" && config.vision.pool_type == "tok"));
  }
  for (const char* key : {"timm_pool", "timm_proj"}) {
    Json without = json;
    without["vision_cfg"].erase(key);
    CHECK_THROWS_WITH(parse_model_config(without.dump(), "here"), Catch::Contains(key));
  }
}

TEST_CASE("models: a trunk that is set field by field is what its name says, or is refused") {
  ModelConfig config = small_models().back().second;
  REQUIRE(config.vision.is_siglip());
  config.validate();
  config.vision.eps = 1e-5;  // (norm_kwargs)
  config.validate();
  CHECK(to_json(parse_model_config(to_json(config), "again")) == to_json(config));
  const std::vector<std::function<void(VisionConfig&)>> others{
      [](VisionConfig& v) { v.no_ln_pre = false; },     [](VisionConfig& v) { v.ls_init_value = 0.1; },
      [](VisionConfig& v) { v.pool_type = "avg"; },     [](VisionConfig& v) { v.attentional_pool = true; },
      [](VisionConfig& v) { v.layers = {1, 1, 1, 1}; }, [](VisionConfig& v) { v.timm_model_name = "vit_base_patch4_siglip_12"; }};
  for (const auto& change : others) {
    ModelConfig other = config;
    change(other.vision);
    INFO(to_json(other));
    CHECK_THROWS_AS(other.validate("here"), ConfigError);
    CHECK_THROWS_WITH(other.validate("here"), Catch::Contains(" is not that of " + other.vision.timm_model_name + "; here; give {"));
  }
  config.vision.timm_model_name = "resnet50";
  CHECK_THROWS_WITH(config.validate("here"), Catch::Contains("timm_model_name 'resnet50' is not supported; here; supported: "));
}

TEST_CASE("models: a config whose numbers are none, or whose tokenizer_kwargs are no object, is refused") {
  const double nan = std::nan("");
  const std::vector<std::pair<const char*, std::function<void(ModelConfig&)>>> wrong{
      {"init_logit_scale|) = nan", [nan](ModelConfig& c) { c.init_logit_scale = nan; }},
      {"init_logit_scale|) = 2.68", [](ModelConfig& c) { c.init_logit_scale = 100.0; }},
      {"init_logit_bias = nan", [nan](ModelConfig& c) { c.init_logit_bias = nan; }},
      {"vision_cfg.ls_init_value = nan", [nan](ModelConfig& c) { c.vision.ls_init_value = nan; }},
      {"text_cfg.ls_init_value = inf", [](ModelConfig& c) { c.text.ls_init_value = HUGE_VAL; }},
      {"preprocess_cfg.mean = nan", [](ModelConfig& c) { c.preprocess.mean[1] = std::nanf(""); }},
      {"tokenizer_kwargs = [1] is no JSON object", [](ModelConfig& c) { c.text.tokenizer_kwargs = "[1]"; }}};
  for (const auto& [message, change] : wrong) {
    ModelConfig config;
    change(config);
    CHECK_THROWS_AS(config.validate("here"), ConfigError);
    CHECK_THROWS_WITH(config.validate("here"), Catch::Contains(message) && Catch::Contains("; here; "));
  }
  Json json = Json::parse(to_json(small_models()[0].second))["model_cfg"];
  for (const Json& kwargs : {Json("clean"), Json::array({"clean"}), Json(3)}) {
    json["text_cfg"]["tokenizer_kwargs"] = kwargs;
    CHECK_THROWS_WITH(parse_model_config(json.dump(), "here"),
                      Catch::Contains("tokenizer_kwargs = " + kwargs.dump() + " is no JSON object"));
  }
  json["text_cfg"]["tokenizer_kwargs"] = nullptr;
  CHECK(parse_model_config(json.dump(), "here").text.tokenizer_kwargs.empty());
}

TEST_CASE("models: between two models alpha is from 0 to 1") {
  const ModelConfig config = small_models()[0].second;
  Clip model(config, 1), other(config, 2);
  const std::vector<float> before = model.visual(zeros({1, 12, 12, 3}), {}).to_vector();
  for (const double alpha : {std::nan(""), -0.1, 1.1}) {
    CHECK_THROWS_AS(blend(model, other, alpha), ConfigError);
    CHECK_THROWS_WITH(blend(model, other, alpha), Catch::Contains("; give a number from 0 to 1"));
  }
  CHECK(model.visual(zeros({1, 12, 12, 3}), {}).to_vector() == before);
}

// Every layout that can hold a model gives its bits back.
TEST_CASE("models: layouts, there and back") {
  for (const auto& [label, config] : small_models()) {
    Clip model(config, 1);
    const StateDict own = state_dict(collect(model));
    for (const Layout layout : {Layout::openai, Layout::open_clip, Layout::hugging_face}) {
      INFO(label << " as " << name_of(layout));
      std::vector<LayoutPiece> pieces;
      try {
        pieces = layout_pieces(layout, config);
      } catch (const ConfigError&) {
        CHECK(layout != Layout::open_clip);
        continue;
      }
      const StateDict back = from_layout(pieces, to_layout(pieces, own));
      REQUIRE(back.size() == own.size());
      for (const auto& [name, tensor] : own) CHECK(back.at(name).to_vector() == tensor.to_vector());
    }
  }
}

const Golden& poolers() {
  static const Golden golden("poolers");
  return golden;
}

TEST_CASE("models: pooling by attention, SigLIP's trunk, fixed positions", "[golden]") {
  const Json cases = golden_json("poolers");
  for (const auto& [name, json] : cases.items()) {
    for (const bool pooled : {true, false}) {
      INFO(name);
      const ModelConfig config = parse_model_config(json.dump(), "poolers.json");
      Clip model(config, 0);
      std::get<VisionTransformer>(model.visual.body).pooled_last_block = pooled;
      const Collector all = collect(model);
      const std::vector<LayoutPiece> pieces = layout_pieces(Layout::open_clip, config);
      StateDict theirs = to_layout(pieces, state_dict(all));
      for (auto& [parameter, tensor] : theirs) {
        const std::string at = name + ".param." + parameter;
        if (poolers().has(at)) tensor = poolers().tensor(at);
        const std::string fixed = name + ".fixed." + parameter;
        if (!poolers().has(fixed)) continue;
        const std::vector<float> mine = tensor.to_vector(), expected = poolers().tensor(fixed).to_vector();
        for (std::size_t i = 0; i < mine.size(); ++i) CHECK(std::abs(mine[i] - expected[i]) < 1e-6F);
      }
      load_state_dict(all, from_layout(pieces, theirs));
      const Tensor y = model.visual(nchw_to_nhwc(poolers().tensor(name + ".in.images")), {});
      check_golden(poolers(), y, name + ".out.image", name + ".err.out.image");
      if (name == "sin_cos") continue;  // a plain ViT but for its positions: its gradients are those of `towers`
      backward(y, poolers().tensor(name + ".grad_out.image"));
      StateDict gradients;
      for (const NamedParameter& p : all.parameters) {
        const Tensor& g = p.parameter->value.grad();
        gradients[p.name] = g.defined() ? g : zeros(p.parameter->value.shape());
      }
      for (const auto& [parameter, gradient] : to_layout(pieces, gradients)) {
        if (poolers().has(name + ".grad_param." + parameter)) {
          check_golden(poolers(), gradient, name + ".grad_param." + parameter, name + ".err.grad_param." + parameter);
        }
      }
    }
  }
}

TEST_CASE("models: norm_kwargs are not those of the attentional pooler") {
  Json json = golden_json("poolers")["pooler"];
  json["vision_cfg"]["norm_kwargs"] = {{"eps", 0.01}};
  const Clip model(parse_model_config(json.dump(), "poolers.json"), 0);
  const VisionTransformer& tower = std::get<VisionTransformer>(model.visual.body);
  CHECK(tower.ln_post.eps == 0.01);
  CHECK(tower.ln_pre->eps == 0.01);
  CHECK(tower.attn_pool->ln_q.eps == 1e-5);
  CHECK(tower.attn_pool->ln_k.eps == 1e-5);
}

TEST_CASE("models: position embeddings are resized as open_clip does", "[golden]") {
  for (const auto& [old, fresh] : {std::pair{7, 12}, {12, 7}, {4, 5}, {3, 8}}) {
    const std::string name = "grid_" + std::to_string(old) + "_" + std::to_string(fresh);
    const std::vector<float> got = resize_grid_positions(poolers().tensor(name + ".before"), 1, fresh).to_vector();
    const std::vector<double> truth = poolers().truth(name + ".after");
    REQUIRE(got.size() == truth.size());
    for (std::size_t i = 0; i < got.size(); ++i) CHECK(std::abs(static_cast<double>(got[i]) - truth[i]) < 1e-6);
  }
  for (const auto& [old, fresh] : {std::pair{77, 32}, {9, 20}}) {
    const std::string name = "text_" + std::to_string(old) + "_" + std::to_string(fresh);
    const std::vector<float> got = resize_text_positions(poolers().tensor(name + ".before"), fresh).to_vector();
    const std::vector<double> truth = poolers().truth(name + ".after");
    REQUIRE(got.size() == truth.size());
    for (std::size_t i = 0; i < got.size(); ++i) CHECK(std::abs(static_cast<double>(got[i]) - truth[i]) < 1e-6);
  }
}

TEST_CASE("models: groups of layers") {
  const ModelConfig vit = *builtin_model_config("ViT-B-32"), resnet = *builtin_model_config("RN50");
  const auto frozen = frozen_by(vit, {true, true, 2, 1});
  for (const char* name :
       {"visual.conv1.weight", "visual.class_embedding", "visual.ln_pre.bias", "visual.transformer.resblocks.10.ln_1.weight",
        "token_embedding.weight", "ln_final.weight", "transformer.resblocks.11.attn.in_proj_weight"}) {
    INFO(name);
    CHECK(frozen(name));
  }
  for (const char* name : {"visual.proj", "visual.ln_post.weight", "visual.transformer.resblocks.11.mlp.c_fc.bias", "text_projection",
                           "logit_scale", "logit_bias"}) {
    INFO(name);
    CHECK_FALSE(frozen(name));
  }
  const auto stages = frozen_by(resnet, {true, false, 2, 0});
  for (const char* name : {"visual.conv1.weight", "visual.bn3.bias", "visual.layer1.0.conv1.weight", "visual.layer3.5.bn1.weight"}) {
    INFO(name);
    CHECK(stages(name));
  }
  for (const char* name : {"visual.layer4.0.downsample.0.weight", "visual.attnpool.positional_embedding", "ln_final.weight"}) {
    INFO(name);
    CHECK_FALSE(stages(name));
  }
  CHECK(frozen_by(resnet, {true, false, 0, 0})("visual.attnpool.c_proj.bias"));

  // open_clip: decay^(n - 1 - i) over embeddings, 12 blocks, projection.
  const auto factor = layer_decay(vit, 0.5, 1.0);
  CHECK(factor("visual.proj") == 1.0F);
  CHECK(factor("visual.ln_post.weight") == 0.5F);
  CHECK(factor("visual.transformer.resblocks.11.ln_1.weight") == 0.5F);
  CHECK(factor("visual.transformer.resblocks.0.ln_1.weight") == static_cast<float>(std::pow(0.5, 12)));
  CHECK(factor("visual.positional_embedding") == static_cast<float>(std::pow(0.5, 13)));
  CHECK(factor("token_embedding.weight") == 1.0F);
  CHECK(factor("logit_scale") == 1.0F);
  const auto of_resnet = layer_decay(resnet, 0.5, 1.0);
  CHECK(of_resnet("visual.attnpool.k_proj.weight") == 1.0F);
  CHECK(of_resnet("visual.layer4.2.conv3.weight") == 0.5F);
  CHECK(of_resnet("visual.layer1.0.bn1.weight") == 0.0625F);
  CHECK(of_resnet("visual.conv3.weight") == 0.03125F);
}

TEST_CASE("models: batch norms of locked groups keep their statistics") {
  const Golden golden("rn_step");
  Clip model(parse_model_config(golden_json("rn_step")["model"].dump(), "rn_step.json"), 0);
  auto& resnet = std::get<ModifiedResNet>(model.visual.body);
  resnet.frozen_statistics = 3;  // stem, two stages
  const std::vector<const BatchNorm2d*> frozen{&resnet.bn1, &resnet.bn3, &resnet.layer1[0].bn1, &resnet.layer2[0].bn3};
  const std::vector<const BatchNorm2d*> others{&resnet.layer3[0].bn1, &resnet.layer4[0].bn3};
  const auto means = [](const std::vector<const BatchNorm2d*>& norms) {
    std::vector<std::vector<float>> out;
    for (const BatchNorm2d* norm : norms) out.push_back(norm->running_mean.to_vector());
    return out;
  };
  const auto before = means(frozen), moved = means(others);
  Context context;
  context.training = true;
  resnet(full({2, model.config.vision.image_size, model.config.vision.image_size, 3}, 0.5), context);
  CHECK(means(frozen) == before);
  for (std::size_t i = 0; i < others.size(); ++i) CHECK(others[i]->running_mean.to_vector() != moved[i]);
}

TEST_CASE("models: captions as a tower reads them") {
  TextConfig c;
  c.context_length = 6;
  c.pad_id = 1;
  c.no_causal_mask = true;
  c.pool_type = "last";
  const TokenBatch last = batch_captions(c, {{22, 5, 23}, {22, 23}});
  CHECK(last.ids.to_ints() == std::vector<std::int64_t>{22, 5, 23, 1, 1, 1, 22, 23, 1, 1, 1, 1});
  CHECK(last.last.to_ints() == std::vector<std::int64_t>{5, 11});
  c.pool_type = "first";
  CHECK(batch_captions(c, {{22, 5, 23}, {22, 23}}).last.to_ints() == std::vector<std::int64_t>{0, 6});
  c.pool_type = "eos";
  c.eos_id = 5;
  CHECK(batch_captions(c, {{22, 5, 23}, {22, 23}}).last.to_ints() == std::vector<std::int64_t>{1, 6});
  c.no_causal_mask = false;
  CHECK(batch_captions(c, {{22, 5}, {22, 9, 5}}).ids.to_ints() == std::vector<std::int64_t>{22, 5, 22, 9, 5});
  // A caption that spells an end of text is read at its first one, packed or not.
  CHECK(batch_captions(c, {{22, 5, 9, 5}}).ids.to_ints() == std::vector<std::int64_t>{22, 5});
  c.pool_type = "argmax";
  CHECK(batch_captions(c, {{22, 23, 9, 23}}).ids.to_ints() == std::vector<std::int64_t>{22, 23});
  CHECK(batch_captions(c, {{22, 23, 9, 23}}, false).last.to_ints() == std::vector<std::int64_t>{1});
  CHECK(batch_captions(c, {{22, 7, 23}}).ids.to_ints() == std::vector<std::int64_t>{22, 7, 23});
}

TEST_CASE("models: pictures with their channels first, and captions longer than the context, are refused by that name") {
  for (const auto& [name, config] : small_models()) {
    INFO(name);
    const Clip model(config, 3);
    const std::int64_t size = config.vision.image_size;
    CHECK_THROWS_WITH(model.encode_image(full({1, 3, size, size}, 0.0)), Catch::Contains("images must be (B, S, S, 3), channels last"));
    CHECK_THROWS_WITH(model.encode_image(full({size, size, 3}, 0.0)), Catch::Contains("images must be (B, S, S, 3), channels last"));
    const auto length = static_cast<std::size_t>(config.text.context_length);
    CHECK_THROWS_WITH(
        model.encode_text(pack_captions({{1, 2}, std::vector<std::int32_t>(length + 1, 1)})),
        Catch::Contains("a caption of " + std::to_string(length + 1) + " tokens is longer than the context of " + std::to_string(length)));
    TokenBatch torn = batch_captions(config.text, {{1, 2, 3}});
    torn.positions = zeros({1}, DType::i64);
    CHECK_THROWS_WITH(model.encode_text(torn), Catch::Contains("a position for each token"));
    torn = batch_captions(config.text, {{1, 2, 3}});
    torn.last = Tensor{};
    CHECK_THROWS_WITH(model.encode_text(torn), Catch::Contains("a row to read for each caption"));
  }
}

TEST_CASE("models: padding that the text tower reads is the tokenizer's") {
  ModelConfig c = *builtin_model_config("ViT-B-32");
  c.text.pad_id = 5;
  CHECK_NOTHROW(tokenizer_of(c));
  c.text.pool_type = "last";
  CHECK_THROWS_WITH(tokenizer_of(c), Catch::Contains("text_cfg.pad_id = 5") && Catch::Contains("set pad_id to 0"));
  c.text.pool_type = "argmax";
  c.text.no_causal_mask = true;
  CHECK_THROWS_AS(tokenizer_of(c), ConfigError);
  c.text.pad_id = 0;
  CHECK_NOTHROW(tokenizer_of(c));
}

// (input_ids == eos_token_id).int().argmax(-1) of Hugging Face and open_clip is 0 where there is none; padding may be one.
TEST_CASE("models: a caption without its end of text has the same features packed and padded") {
  ModelConfig config = small_models().front().second;
  TextConfig& c = config.text;
  c.pool_type = "eos";
  c.eos_id = 5;
  const std::vector<std::vector<std::int32_t>> captions{{22, 9, 7}, {22, 5}, {21, 9, 9, 9, 9, 9, 9, 9, 9}};  // the last fills its row
  const std::pair<int, std::vector<std::int64_t>> expected[] = {{0, {0, 10, 18}}, {5, {3, 10, 18}}};
  for (const auto& [pad, read] : expected) {
    INFO("pad_id " << pad);
    c.pad_id = pad;
    const TokenBatch packed = batch_captions(c, captions), padded = batch_captions(c, captions, false);
    CHECK(padded.last.to_ints() == read);
    const Clip model(config, 3);
    const NoGrad guard;
    const std::vector<float> a = model.encode_text(packed).to_vector(), b = model.encode_text(padded).to_vector();
    REQUIRE(a.size() == b.size());
    for (std::size_t i = 0; i < a.size(); ++i) CHECK(a[i] == Approx(b[i]).margin(1e-5));
  }
}

TEST_CASE("models: weights rounded once give the features of weights that every product rounds") {
  for (const auto& [name, config] : small_models()) {
    INFO(name);
    Clip model(config, 3);
    const Tensor pixels = gray_pairs(config, 3).pixels;
    const TokenBatch tokens = batch_captions(config.text, {{22, 9, 7, 23}, {22, 23}, {22, 1, 2, 3, 23}});
    Context context;
    context.compute = Compute::bf16;
    const NoGrad guard;
    const auto features = [&] {
      std::vector<float> out = model.encode_image(pixels, context).to_vector();
      const std::vector<float> text = model.encode_text(tokens, context).to_vector();
      out.insert(out.end(), text.begin(), text.end());
      return out;
    };
    const std::vector<float> before = features();
    round_weights(collect(model));
    int copies = 0;
    for (const NamedParameter& p : collect(model).parameters) copies += p.parameter->shadow.defined() ? 1 : 0;
    CHECK(copies > 4);
    CHECK(features() == before);
    // Values that are loaded later are rounded, too.
    Clip other(config, 4);
    load_state_dict(collect(model), state_dict(collect(other)));
    CHECK(features() != before);
  }
}

}  // namespace
}  // namespace twinlens::test
