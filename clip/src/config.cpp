#include "twinlens/clip/config.h"

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <fmt/format.h>
#include <fstream>
#include <nlohmann/json.hpp>
#include <sstream>
#include <utility>

#include "clip/src/checkpoint.h"
#include "clip/src/config_reader.h"

#include "twinlens/clip/nearest_name.h"
#include "twinlens/clip/pretrained.h"
#include "twinlens/kernels/error.h"

namespace twinlens {
namespace {

using Json = nlohmann::ordered_json;

void read_norm_and_activation(ConfigReader& r, const std::string& source, double& eps, bool& gelu_tanh) {
  if (const Json* norm = r.child("norm_kwargs"); norm != nullptr && !norm->is_null()) {
    ConfigReader inner(*norm, source, "norm_kwargs");
    inner.read("eps", eps);
    inner.finish();
  }
  if (const Json* act = r.child("act_kwargs"); act != nullptr && !act->is_null()) {
    ConfigReader inner(*act, source, "act_kwargs");
    std::string approximate = "none";
    inner.read("approximate", approximate);
    inner.finish();
    if (approximate != "none" && approximate != "tanh") {
      throw ConfigError("model config: act_kwargs.approximate = '" + approximate + "' is unknown; " + source + "; use none or tanh");
    }
    gelu_tanh = approximate == "tanh";
  }
}

// Blocks other than CLIP's.
void require_plain_blocks(ConfigReader& r) {
  for (const char* key : {"qk_norm", "scaled_cosine_attn", "scale_heads", "scale_attn_inner", "scale_attn", "scale_fc"})
    r.require(key, false);
  r.require("block_type", std::string("default"));
}

// Sizes that timm has no name for stand in the config (weights of transformers can have any).
bool is_custom_trunk(const VisionConfig& c) { return c.timm_model_name.rfind("vit_custom_", 0) == 0; }

// timm's vit_SIZE_patchP_siglip_S (timm models/vision_transformer.py). Those that use the tanh form of GELU are listed; act_kwargs
// overrides.
void set_siglip_trunk(VisionConfig& c, const std::string& source) {
  struct Size {
    const char* name;
    int width, layers, heads;
    double mlp_ratio;
  };
  constexpr Size kSizes[] = {
      {"base", 768, 12, 12, 4.0}, {"large", 1024, 24, 16, 4.0}, {"so400m", 1152, 27, 16, 3.7362}, {"giantopt", 1536, 40, 16, 4.0}};
  constexpr const char* kTanh[] = {"vit_base_patch32_siglip_256", "vit_large_patch16_siglip_512", "vit_so400m_patch16_", "vit_giantopt_"};
  c.no_ln_pre = true;
  c.eps = 1e-6;
  // Keys of CLIP's own towers, which open_clip does not look at here.
  const VisionConfig plain;
  c.ls_init_value = plain.ls_init_value;
  c.attentional_pool = plain.attentional_pool;
  c.final_ln_after_pool = plain.final_ln_after_pool;
  c.pool_type = plain.pool_type;
  c.pos_embed_type = plain.pos_embed_type;
  if (is_custom_trunk(c)) return;
  for (const Size& size : kSizes) {
    const std::string start = std::string("vit_") + size.name + "_patch";
    int patch = 0, image = 0, end = 0;
    if (c.timm_model_name.rfind(start, 0) != 0) continue;
    const std::string rest = c.timm_model_name.substr(start.size());
    if (std::sscanf(rest.c_str(), "%d_siglip_%d%n", &patch, &image, &end) != 2 || end != static_cast<int>(rest.size())) continue;
    c.width = size.width;
    c.layers = {size.layers};
    c.head_width = size.width / size.heads;
    c.mlp_ratio = size.mlp_ratio;
    c.patch_size = patch;
    for (const char* name : kTanh) c.gelu_tanh = c.gelu_tanh || c.timm_model_name.rfind(name, 0) == 0;
    return;
  }
  throw ConfigError("model config: timm_model_name '" + c.timm_model_name + "' is not supported; " + source +
                    "; supported: timm's SigLIP trunks, such as vit_base_patch16_siglip_224");
}

VisionConfig read_vision(const Json& json, const std::string& source) {
  VisionConfig c;
  ConfigReader r(json, source, "vision_cfg");
  const Json* layers = r.child("layers");
  if (layers != nullptr && layers->is_array()) {
    r.read("layers", c.layers);
  } else if (layers != nullptr) {
    c.layers.resize(1);
    r.read("layers", c.layers[0]);
  }
  r.read("width", c.width);
  r.read("head_width", c.head_width);
  r.read("mlp_ratio", c.mlp_ratio);
  r.read("patch_size", c.patch_size);
  r.read("image_size", c.image_size);
  r.read("pool_type", c.pool_type);
  r.read("no_ln_pre", c.no_ln_pre);
  r.read("final_ln_after_pool", c.final_ln_after_pool);
  r.read("patch_dropout", c.patch_dropout);
  r.read("attentional_pool", c.attentional_pool);
  r.read("attn_pooler_queries", c.attn_pooler_queries);
  r.read("attn_pooler_heads", c.attn_pooler_heads);
  r.read("pos_embed_type", c.pos_embed_type);
  r.require("output_tokens", false);
  r.read_layer_scale(c.ls_init_value);
  r.read("timm_model_name", c.timm_model_name);
  if (c.is_siglip()) {
    set_siglip_trunk(c, source);
    if (!is_custom_trunk(c)) {  // which open_clip does not know
      r.require_given("timm_pool", std::string("avg"));
      r.require_given("timm_proj", std::string("linear"));
    }
    r.require("timm_pool", std::string("map"));
    r.require("timm_proj", std::string("none"));
  }
  read_norm_and_activation(r, source, c.eps, c.gelu_tanh);
  require_plain_blocks(r);
  for (const char* key : {"timm_pool", "timm_proj", "timm_proj_bias", "timm_model_pretrained"}) r.ignore(key);
  r.require("timm_drop", 0.0);
  r.require("timm_drop_path", Json());
  r.finish();
  return c;
}

TextConfig read_text(const Json& json, const std::string& source) {
  TextConfig c;
  ConfigReader r(json, source, "text_cfg");
  r.read("context_length", c.context_length);
  r.read("vocab_size", c.vocab_size);
  r.read("width", c.width);
  r.read("heads", c.heads);
  r.read("layers", c.layers);
  r.read("mlp_ratio", c.mlp_ratio);
  r.read("pool_type", c.pool_type);
  r.read("eos_id", c.eos_id);
  // SentencePiece of SigLIP pads with its end of text, the others with 0.
  r.read("hf_tokenizer_name", c.hf_tokenizer_name);
  const std::string& name = c.hf_tokenizer_name;
  if (name.find("SigLIP") != std::string::npos && name.find("SigLIP2") == std::string::npos) c.pad_id = 1;
  r.read("pad_id", c.pad_id);
  r.read("no_causal_mask", c.no_causal_mask);
  r.require("embed_cls", false);
  r.read("proj_bias", c.proj_bias);
  r.require("proj_type", std::string("linear"));
  r.require("final_ln_after_pool", false);
  r.require("output_tokens", false);
  r.read_layer_scale(c.ls_init_value);
  read_norm_and_activation(r, source, c.eps, c.gelu_tanh);
  require_plain_blocks(r);
  if (const Json* kwargs = r.child("tokenizer_kwargs"); kwargs != nullptr && !kwargs->is_null()) c.tokenizer_kwargs = kwargs->dump();
  r.finish();
  return c;
}

PreprocessConfig read_preprocess(const Json& json, const std::string& source) {
  PreprocessConfig c;
  ConfigReader r(json, source, "preprocess_cfg");
  r.read("mean", c.mean);
  r.read("std", c.std);
  r.read("interpolation", c.interpolation);
  r.read("resize_mode", c.resize_mode);
  r.read("fill_color", c.fill_color);
  r.require("mode", std::string("RGB"));
  r.ignore("size");
  r.finish();
  return c;
}

Json vision_json(const VisionConfig& c);

// What must hold between the values of a config that was read from `source`.
struct Checks {
  const std::string& source;

  void require(bool good, const std::string& what, const std::string& remedy) const {
    if (!good) throw ConfigError("model config: " + what + "; " + source + "; " + remedy);
  }
  void positive(const std::string& field, double value) const {
    require(value > 0 && std::isfinite(value), field + fmt::format(" = {} is not above 0", value), "must be positive");
  }
  void finite(const std::string& field, double value) const {
    require(std::abs(value) < 3.4e38, field + fmt::format(" = {} is not finite in f32", value), "must be finite");
  }
  void divides(const std::string& field, int value, const std::string& by_field, int by) const {
    require(by > 0 && value % by == 0,
            field + " = " + std::to_string(value) + " is not a multiple of " + by_field + " = " + std::to_string(by), "change one of them");
  }
  void one_of(const std::string& field, const std::string& value, std::initializer_list<const char*> known) const {
    std::string list;
    for (const char* name : known) list += (list.empty() ? "" : ", ") + std::string(name);
    const bool found = std::find(known.begin(), known.end(), value) != known.end();
    require(found, "'" + value + "' is not supported for key '" + field + "'", "supported: " + list);
  }
  // Fields that were set one by one must be what the trunk's name says: a saved config names the trunk alone.
  void trunk(VisionConfig c) const {
    VisionConfig named = c;
    set_siglip_trunk(named, source);
    named.layers.resize(1);
    named.eps = c.eps;  // norm_kwargs and act_kwargs are saved
    named.gelu_tanh = c.gelu_tanh;
    const std::string name = std::exchange(c.timm_model_name, {});
    named.timm_model_name.clear();
    const Json given = vision_json(c), wanted = vision_json(named);
    require(given == wanted, "vision_cfg = " + given.dump() + " is not that of " + name, "give " + wanted.dump());
  }
};

}  // namespace

Activation ModelConfig::vision_activation() const {
  // timm's trunks have their own, whatever quick_gelu says.
  if (quick_gelu && !vision.is_siglip()) return Activation::quick_gelu;
  return vision.gelu_tanh ? Activation::gelu_tanh : Activation::gelu;
}

Activation ModelConfig::text_activation() const {
  return quick_gelu ? Activation::quick_gelu : text.gelu_tanh ? Activation::gelu_tanh : Activation::gelu;
}

void ModelConfig::validate(const std::string& source) const {
  const Checks check{source};
  check.positive("embed_dim", embed_dim);
  check.positive("vision_cfg.width", vision.width);
  check.positive("vision_cfg.image_size", vision.image_size);
  check.positive("text_cfg.width", text.width);
  check.require(text.context_length >= 2, "text_cfg.context_length = " + std::to_string(text.context_length) + " has no room for text",
                "use 2 or more: the first and the last token are marks");
  check.positive("text_cfg.vocab_size", text.vocab_size);
  check.require(vision.layers.size() == 1 || vision.layers.size() == 4, "vision_cfg.layers needs 1 or 4 numbers", "give 4 for a ResNet");
  for (const int layers : vision.layers) check.positive("vision_cfg.layers", layers);
  check.positive("text_cfg.layers", text.layers);
  for (const double hidden : {vision.mlp_ratio * vision.width, text.mlp_ratio * text.width}) {
    check.require(hidden >= 1.0 && hidden <= kLargestConfigNumber * 16.0,
                  "mlp_ratio * width = " + Json(hidden).dump() + " is no size of a layer", "use a usual mlp_ratio, such as 4");
  }
  check.require(vision.patch_dropout >= 0.0 && vision.patch_dropout < 1.0,
                "vision_cfg.patch_dropout = " + std::to_string(vision.patch_dropout) + " is no share", "give 0 or more, and less than 1");
  if (vision.is_siglip()) check.trunk(vision);
  if (vision.is_resnet()) {
    check.require(!(vision.patch_dropout > 0.0), "vision_cfg.patch_dropout is set and a ResNet has no patches", "leave it out");
    check.require(vision.image_size >= 32,
                  "vision_cfg.image_size = " + std::to_string(vision.image_size) + " is less than the ResNet's stride", "use 32 or more");
    check.divides("vision_cfg.width * 32", vision.width * 32, "vision_cfg.head_width", vision.head_width);
    check.divides("vision_cfg.width", vision.width, "2", 2);
  } else {
    check.positive("vision_cfg.patch_size", vision.patch_size);
    if (!vision.is_siglip()) check.divides("vision_cfg.image_size", vision.image_size, "vision_cfg.patch_size", vision.patch_size);
    check.positive("vision_cfg.image_size / patch_size", vision.grid());
    check.require(vision.grid() <= 1 << 15, "vision_cfg.image_size / patch_size is above 32768", "give larger patches");
    check.divides("vision_cfg.width", vision.width, "vision_cfg.head_width", vision.head_width);
    check.one_of("vision_cfg.pool_type", vision.pool_type, {"tok", "avg"});
    check.one_of("vision_cfg.pos_embed_type", vision.pos_embed_type, {"learnable", "sin_cos_2d"});
    if (vision.pos_embed_type == "sin_cos_2d") check.divides("vision_cfg.width", vision.width, "4", 4);
    if (vision.attentional_pool) {
      check.positive("vision_cfg.attn_pooler_queries", vision.attn_pooler_queries);
      check.require(vision.pool_type != "avg" || vision.attn_pooler_queries > 1,
                    "vision_cfg.attn_pooler_queries = 1 leaves none to average with pool_type avg, which passes over the first",
                    "give 2 or more");
      check.divides("embed_dim", embed_dim, "vision_cfg.attn_pooler_heads", vision.attn_pooler_heads);
    }
    check.require(
        !vision.is_siglip() || embed_dim == vision.width,
        "embed_dim = " + std::to_string(embed_dim) + " is not the width of " + vision.timm_model_name + ", " + std::to_string(vision.width),
        "a trunk without projection gives its own width");
  }
  check.divides("text_cfg.width", text.width, "text_cfg.heads", text.heads);
  check.one_of("text_cfg.pool_type", text.pool_type, {"argmax", "eos", "last", "first"});
  const auto in_vocabulary = [&](const char* field, int id) {
    check.require(id >= 0 && id < text.vocab_size, std::string(field) + " = " + std::to_string(id) + " is no token of the vocabulary",
                  "text_cfg.vocab_size is " + std::to_string(text.vocab_size));
  };
  in_vocabulary("text_cfg.pad_id", text.pad_id);
  if (text.pool_type == "eos") in_vocabulary("text_cfg.eos_id", text.eos_id);
  check.positive("vision_cfg.norm_kwargs.eps", vision.eps);
  check.positive("text_cfg.norm_kwargs.eps", text.eps);
  check.require(!quick_gelu || vision.is_siglip() || !(vision.gelu_tanh || text.gelu_tanh), "quick_gelu and act_kwargs exclude each other",
                "remove one of them");
  check.finite("exp(|init_logit_scale|)", std::exp(std::abs(init_logit_scale)));
  check.finite("init_logit_bias", init_logit_bias.value_or(0.0));
  check.finite("vision_cfg.ls_init_value", vision.ls_init_value);
  check.finite("text_cfg.ls_init_value", text.ls_init_value);
  check.require(text.tokenizer_kwargs.empty() || Json::parse(text.tokenizer_kwargs, nullptr, false).is_object(),
                "text_cfg.tokenizer_kwargs = " + text.tokenizer_kwargs + " is no JSON object", "give one, or leave it out");
  for (const float value : preprocess.mean) check.finite("preprocess_cfg.mean", static_cast<double>(value));
  for (const float value : preprocess.std) check.positive("preprocess_cfg.std", static_cast<double>(value));
  check.one_of("preprocess_cfg.resize_mode", preprocess.resize_mode, {"shortest", "longest", "squash"});
  check.require(preprocess.fill_color >= 0 && preprocess.fill_color <= 255,
                "preprocess_cfg.fill_color = " + std::to_string(preprocess.fill_color) + " is no brightness", "give 0 to 255");
  check.one_of("preprocess_cfg.interpolation", preprocess.interpolation, {"bicubic", "bilinear"});
}

ModelConfig parse_model_config(const std::string& text, const std::string& source) {
  Json json;
  try {
    json = Json::parse(text);
  } catch (const Json::exception& e) {
    std::string why = e.what();  // quotes what stands there, whatever bytes these are
    std::replace_if(
        why.begin(), why.end(), [](unsigned char c) { return c < 0x20 || c >= 0x7F; }, '?');
    throw ConfigError("model config: not JSON: " + why + "; " + source + "; give open_clip's model config");
  }
  ModelConfig c;
  if (json.is_object() && json.contains("model_cfg")) {
    ConfigReader outer(json, source, "");
    outer.child("model_cfg");
    std::string of_weights;  // that lie beside it (pretrained.cpp)
    outer.read("activation", of_weights);
    if (const Json* preprocess = outer.child("preprocess_cfg")) c.preprocess = read_preprocess(*preprocess, source);
    outer.finish();
    json = Json(json.at("model_cfg"));
  }
  ConfigReader r(json, source, "");
  r.read("embed_dim", c.embed_dim);
  r.read("quick_gelu", c.quick_gelu);
  r.read("init_logit_scale", c.init_logit_scale);
  r.read("custom_text", c.custom_text);
  r.require("nonscalar_logit_scale", false);
  if (const Json* bias = r.child("init_logit_bias"); bias != nullptr && !bias->is_null())
    r.read("init_logit_bias", c.init_logit_bias.emplace());
  if (const Json* vision = r.child("vision_cfg")) c.vision = read_vision(*vision, source);
  if (const Json* text_cfg = r.child("text_cfg")) c.text = read_text(*text_cfg, source);
  r.finish();
  for (const char* key : {"embed_dim", "vision_cfg", "text_cfg"}) {  // as open_clip: any other JSON would be ViT-B-32
    if (!json.contains(key))
      throw ConfigError(std::string("model config: no '") + key + "'; " + source + "; give open_clip's model config");
  }
  c.validate(source);
  return c;
}

namespace {

Json vision_json(const VisionConfig& c) {
  if (c.is_siglip()) {
    Json out{{"image_size", c.image_size},
             {"timm_model_name", c.timm_model_name},
             {"timm_model_pretrained", false},
             {"timm_pool", "map"},
             {"timm_proj", "none"}};
    VisionConfig plain;
    plain.timm_model_name = c.timm_model_name;
    set_siglip_trunk(plain, "to_json");
    if (plain.gelu_tanh != c.gelu_tanh) out["act_kwargs"] = {{"approximate", c.gelu_tanh ? "tanh" : "none"}};
    if (c.eps != plain.eps) out["norm_kwargs"] = {{"eps", c.eps}};
    if (c.patch_dropout != 0.0) out["patch_dropout"] = c.patch_dropout;
    if (is_custom_trunk(c)) {
      out["layers"] = c.layers[0];
      out["width"] = c.width;
      out["head_width"] = c.head_width;
      out["patch_size"] = c.patch_size;
      out["mlp_ratio"] = c.mlp_ratio;
    }
    return out;
  }
  Json out{{"image_size", c.image_size}, {"layers", c.layers}, {"width", c.width}, {"head_width", c.head_width}};
  if (c.is_resnet()) return out;
  const VisionConfig plain;
  out["layers"] = c.layers[0];
  out["patch_size"] = c.patch_size;
  out["mlp_ratio"] = c.mlp_ratio;
  if (c.ls_init_value != 0.0) out["ls_init_value"] = c.ls_init_value;
  if (c.attentional_pool) {
    out["attentional_pool"] = true;
    out["attn_pooler_queries"] = c.attn_pooler_queries;
    out["attn_pooler_heads"] = c.attn_pooler_heads;
  }
  if (c.no_ln_pre) out["no_ln_pre"] = true;
  if (c.patch_dropout != 0.0) out["patch_dropout"] = c.patch_dropout;
  if (c.pos_embed_type != plain.pos_embed_type) out["pos_embed_type"] = c.pos_embed_type;
  if (c.final_ln_after_pool) out["final_ln_after_pool"] = true;
  if (c.pool_type != plain.pool_type) out["pool_type"] = c.pool_type;
  if (c.eps != plain.eps) out["norm_kwargs"] = {{"eps", c.eps}};
  if (c.gelu_tanh) out["act_kwargs"] = {{"approximate", "tanh"}};
  return out;
}

Json text_json(const TextConfig& c) {
  const TextConfig plain;
  Json out{{"context_length", c.context_length}, {"vocab_size", c.vocab_size}};
  if (!c.hf_tokenizer_name.empty()) out["hf_tokenizer_name"] = c.hf_tokenizer_name;
  if (!c.tokenizer_kwargs.empty()) out["tokenizer_kwargs"] = Json::parse(c.tokenizer_kwargs);
  out["width"] = c.width;
  out["heads"] = c.heads;
  out["layers"] = c.layers;
  if (c.mlp_ratio != plain.mlp_ratio) out["mlp_ratio"] = c.mlp_ratio;
  if (c.ls_init_value != 0.0) out["ls_init_value"] = c.ls_init_value;
  if (c.no_causal_mask) out["no_causal_mask"] = true;
  if (c.pool_type != plain.pool_type) out["pool_type"] = c.pool_type;
  if (c.pool_type == "eos") out["eos_id"] = c.eos_id;
  if (c.pad_id != 0 || c.hf_tokenizer_name.find("SigLIP") != std::string::npos) out["pad_id"] = c.pad_id;
  if (c.proj_bias) out["proj_bias"] = true;
  if (c.eps != plain.eps) out["norm_kwargs"] = {{"eps", c.eps}};
  if (c.gelu_tanh) out["act_kwargs"] = {{"approximate", "tanh"}};
  return out;
}

}  // namespace

std::string to_json(const ModelConfig& c) {
  Json model{{"embed_dim", c.embed_dim}};
  if (c.quick_gelu) model["quick_gelu"] = true;
  if (c.custom_text) model["custom_text"] = true;
  if (c.init_logit_scale != ModelConfig{}.init_logit_scale) model["init_logit_scale"] = c.init_logit_scale;
  if (c.init_logit_bias.has_value()) model["init_logit_bias"] = *c.init_logit_bias;
  model["vision_cfg"] = vision_json(c.vision);
  model["text_cfg"] = text_json(c.text);
  Json preprocess{{"mean", c.preprocess.mean},
                  {"std", c.preprocess.std},
                  {"interpolation", c.preprocess.interpolation},
                  {"resize_mode", c.preprocess.resize_mode}};
  if (c.preprocess.fill_color != 0) preprocess["fill_color"] = c.preprocess.fill_color;
  return Json{{"model_cfg", model}, {"preprocess_cfg", preprocess}}.dump(2) + "\n";
}

ModelConfig find_model_config(const std::string& name_or_path, const std::string& flag) {
  if (const auto builtin = builtin_model_config(name_or_path)) return *builtin;
  std::filesystem::path path = name_or_path;
  std::error_code ignored;
  if (!weights_file(name_or_path).empty()) return find_source(name_or_path, flag).config;
  if (std::filesystem::is_directory(path, ignored)) path /= "open_clip_config.json";
  if (std::filesystem::is_regular_file(path, ignored) && path.filename() != kLatest) {
    std::ifstream file(path);
    std::stringstream text;
    text << file.rdbuf();
    if (!file) throw FileError("model config: cannot be read; " + path.string() + "; check its permissions");
    return parse_model_config(text.str(), path.string());
  }
  if (const std::string inside = model_inside(name_or_path); !inside.empty()) {
    throw ConfigError("'" + name_or_path + "' belongs to a training run and is no model; " + flag + "; its model is in " + inside);
  }
  const bool is_there = std::filesystem::exists(name_or_path, ignored);
  if (is_there || name_or_path.find('/') != std::string::npos || name_or_path.ends_with(".json")) {
    throw ConfigError("'" + name_or_path + (is_there ? "' is no model; " : "' is not there; ") + flag +
                      "; give a built-in name, or the path of an open_clip config .json or of a model folder");
  }
  throw ConfigError("unknown model '" + name_or_path + "'; " + flag + "; did you mean " +
                    nearest_name(name_or_path, builtin_model_names()) + "? Or give the path of an open_clip config .json or model folder");
}

}  // namespace twinlens
