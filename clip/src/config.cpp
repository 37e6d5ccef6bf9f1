#include "twinlens/clip/config.h"

#include <algorithm>
#include <fstream>
#include <nlohmann/json.hpp>
#include <set>
#include <sstream>

#include "twinlens/clip/nearest_name.h"
#include "twinlens/kernels/error.h"

namespace twinlens {
namespace {

using Json = nlohmann::ordered_json;

// Reads one JSON object: every key must be asked for, so that nothing which changes the numbers is ignored.
class Reader {
 public:
  Reader(const Json& object, std::string source, std::string section)
      : object_(object), source_(std::move(source)), section_(std::move(section)) {
    if (!object_.is_object()) fail("is not an object", "give a JSON object");
  }

  template <class T>
  void read(const char* key, T& value) {
    known_.insert(key);
    const auto it = object_.find(key);
    if (it == object_.end() || it->is_null()) return;
    try {
      value = it->template get<T>();
    } catch (const Json::exception&) {
      fail(std::string("key '") + key + "' has the wrong type: " + it->dump(), "see docs/models.md for its type");
    }
  }
  // A key that is understood at one value only.
  template <class T>
  void require(const char* key, const T& supported) {
    T value = supported;
    read(key, value);
    if (!(value == supported)) {
      fail(std::string("key '") + key + "' = " + object_.at(key).dump() + " is not supported",
           std::string("supported: ") + Json(supported).dump());
    }
  }
  // A key that does not change the numbers.
  void ignore(const char* key) { known_.insert(key); }
  const Json* child(const char* key) {
    known_.insert(key);
    const auto it = object_.find(key);
    return it == object_.end() ? nullptr : &*it;
  }
  void finish() const {
    for (const auto& [key, value] : object_.items()) {
      if (known_.count(key) == 0) fail("key '" + key + "' is not supported", "remove it or use another model");
    }
  }

 private:
  [[noreturn]] void fail(const std::string& what, const std::string& remedy) const {
    throw ConfigError("model config: " + what + "; " + source_ + (section_.empty() ? "" : " " + section_) + "; " + remedy);
  }
  const Json& object_;
  std::string source_, section_;
  std::set<std::string> known_;
};

VisionConfig read_vision(const Json& json, const std::string& source) {
  VisionConfig c;
  Reader r(json, source, "vision_cfg");
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
  r.require("pool_type", std::string("tok"));
  r.require("no_ln_pre", false);
  r.require("final_ln_after_pool", false);
  r.require("patch_dropout", 0.0);
  r.require("attentional_pool", false);
  r.require("pos_embed_type", std::string("learnable"));
  r.require("output_tokens", false);
  if (const Json* ls = r.child("ls_init_value"); ls != nullptr && !ls->is_null()) r.require("ls_init_value", 0.0);
  r.finish();
  return c;
}

TextConfig read_text(const Json& json, const std::string& source) {
  TextConfig c;
  Reader r(json, source, "text_cfg");
  r.read("context_length", c.context_length);
  r.read("vocab_size", c.vocab_size);
  r.read("width", c.width);
  r.read("heads", c.heads);
  r.read("layers", c.layers);
  r.read("mlp_ratio", c.mlp_ratio);
  r.read("hf_tokenizer_name", c.hf_tokenizer_name);
  if (const Json* kwargs = r.child("tokenizer_kwargs"); kwargs != nullptr && kwargs->is_object()) c.tokenizer_kwargs = kwargs->dump();
  r.require("pool_type", std::string("argmax"));
  r.require("no_causal_mask", false);
  r.require("embed_cls", false);
  r.require("proj_bias", false);
  r.require("output_tokens", false);
  r.finish();
  return c;
}

PreprocessConfig read_preprocess(const Json& json, const std::string& source) {
  PreprocessConfig c;
  Reader r(json, source, "preprocess_cfg");
  r.read("mean", c.mean);
  r.read("std", c.std);
  r.read("interpolation", c.interpolation);
  r.read("resize_mode", c.resize_mode);
  for (const char* key : {"size", "mode", "fill_color"}) r.ignore(key);
  r.finish();
  return c;
}

struct Preset {
  const char* name;
  const char* json;
};

// open_clip src/open_clip/model_configs (facts: sizes only). -quickgelu variants are made below.
constexpr Preset kPresets[] = {
    {"RN50",
     R"({"embed_dim":1024,"vision_cfg":{"image_size":224,"layers":[3,4,6,3],"width":64},"text_cfg":{"width":512,"heads":8,"layers":12}})"},
    {"RN101",
     R"({"embed_dim":512,"vision_cfg":{"image_size":224,"layers":[3,4,23,3],"width":64},"text_cfg":{"width":512,"heads":8,"layers":12}})"},
    {"RN50x4",
     R"({"embed_dim":640,"vision_cfg":{"image_size":288,"layers":[4,6,10,6],"width":80},"text_cfg":{"width":640,"heads":10,"layers":12}})"},
    {"RN50x16",
     R"({"embed_dim":768,"vision_cfg":{"image_size":384,"layers":[6,8,18,8],"width":96},"text_cfg":{"width":768,"heads":12,"layers":12}})"},
    {"RN50x64",
     R"({"embed_dim":1024,"vision_cfg":{"image_size":448,"layers":[3,15,36,10],"width":128},"text_cfg":{"width":1024,"heads":16,"layers":12}})"},
    {"ViT-S-32",
     R"({"embed_dim":384,"vision_cfg":{"image_size":224,"layers":12,"width":384,"patch_size":32},"text_cfg":{"width":384,"heads":6,"layers":12}})"},
    {"ViT-S-16",
     R"({"embed_dim":384,"vision_cfg":{"image_size":224,"layers":12,"width":384,"patch_size":16},"text_cfg":{"width":384,"heads":6,"layers":12}})"},
    {"ViT-S-32-alt",
     R"({"embed_dim":256,"vision_cfg":{"image_size":224,"layers":12,"width":384,"patch_size":32},"text_cfg":{"width":256,"heads":4,"layers":10}})"},
    {"ViT-M-32",
     R"({"embed_dim":512,"vision_cfg":{"image_size":224,"layers":12,"width":512,"patch_size":32},"text_cfg":{"width":512,"heads":8,"layers":12}})"},
    {"ViT-B-32",
     R"({"embed_dim":512,"vision_cfg":{"image_size":224,"layers":12,"width":768,"patch_size":32},"text_cfg":{"width":512,"heads":8,"layers":12}})"},
    {"ViT-B-32-256",
     R"({"embed_dim":512,"vision_cfg":{"image_size":256,"layers":12,"width":768,"patch_size":32},"text_cfg":{"width":512,"heads":8,"layers":12}})"},
    {"ViT-B-16",
     R"({"embed_dim":512,"vision_cfg":{"image_size":224,"layers":12,"width":768,"patch_size":16},"text_cfg":{"width":512,"heads":8,"layers":12}})"},
    {"ViT-B-16-plus-240",
     R"({"embed_dim":640,"vision_cfg":{"image_size":240,"layers":12,"width":896,"patch_size":16},"text_cfg":{"width":640,"heads":10,"layers":12}})"},
    {"ViT-L-14",
     R"({"embed_dim":768,"vision_cfg":{"image_size":224,"layers":24,"width":1024,"patch_size":14},"text_cfg":{"width":768,"heads":12,"layers":12}})"},
    {"ViT-L-14-280",
     R"({"embed_dim":768,"vision_cfg":{"image_size":280,"layers":24,"width":1024,"patch_size":14},"text_cfg":{"width":768,"heads":12,"layers":12}})"},
    {"ViT-L-14-336",
     R"({"embed_dim":768,"vision_cfg":{"image_size":336,"layers":24,"width":1024,"patch_size":14},"text_cfg":{"width":768,"heads":12,"layers":12}})"},
    {"ViT-H-14",
     R"({"embed_dim":1024,"vision_cfg":{"image_size":224,"layers":32,"width":1280,"head_width":80,"patch_size":14},"text_cfg":{"width":1024,"heads":16,"layers":24}})"},
    {"ViT-g-14",
     R"({"embed_dim":1024,"vision_cfg":{"image_size":224,"layers":40,"width":1408,"head_width":88,"mlp_ratio":4.3637,"patch_size":14},"text_cfg":{"width":1024,"heads":16,"layers":24}})"},
    {"ViT-bigG-14",
     R"({"embed_dim":1280,"vision_cfg":{"image_size":224,"layers":48,"width":1664,"head_width":104,"mlp_ratio":4.9231,"patch_size":14},"text_cfg":{"width":1280,"heads":20,"layers":32}})"},
    {"ViT-e-14",
     R"({"embed_dim":1280,"vision_cfg":{"image_size":224,"layers":56,"width":1792,"head_width":112,"mlp_ratio":8.5715,"patch_size":14},"text_cfg":{"width":1280,"heads":20,"layers":36}})"},
};
// Those that OpenAI published, trained with QuickGELU.
constexpr const char* kQuickGelu[] = {"RN50", "RN101", "RN50x4", "RN50x16", "RN50x64", "ViT-B-32", "ViT-B-16", "ViT-L-14", "ViT-L-14-336"};
constexpr const char* kQuickGeluSuffix = "-quickgelu";

void check_positive(const char* field, double value) {
  if (!(value > 0))
    throw ConfigError("model config: " + std::string(field) + " = " + std::to_string(value) + "; model config; must be positive");
}
void check_divides(const char* field, int value, const char* by_field, int by) {
  if (by <= 0 || value % by != 0) {
    throw ConfigError("model config: " + std::string(field) + " = " + std::to_string(value) + " is not a multiple of " + by_field + " = " +
                      std::to_string(by) + "; model config; change one of them");
  }
}

}  // namespace

void ModelConfig::validate() const {
  check_positive("embed_dim", embed_dim);
  check_positive("vision_cfg.width", vision.width);
  check_positive("vision_cfg.image_size", vision.image_size);
  check_positive("text_cfg.width", text.width);
  check_positive("text_cfg.context_length", text.context_length - 1);
  check_positive("text_cfg.vocab_size", text.vocab_size);
  for (const int layers : vision.layers) check_positive("vision_cfg.layers", layers);
  check_positive("text_cfg.layers", text.layers);
  if (vision.is_resnet()) {
    if (vision.layers.size() != 4)
      throw ConfigError("model config: vision_cfg.layers needs 1 or 4 numbers; model config; give 4 for a ResNet");
    if (vision.image_size < 32)
      throw ConfigError("model config: vision_cfg.image_size = " + std::to_string(vision.image_size) +
                        " is less than the ResNet's stride; model config; use 32 or more");
    check_divides("vision_cfg.width * 32", vision.width * 32, "vision_cfg.head_width", vision.head_width);
    check_divides("vision_cfg.width", vision.width, "2", 2);
  } else {
    check_divides("vision_cfg.image_size", vision.image_size, "vision_cfg.patch_size", vision.patch_size);
    check_divides("vision_cfg.width", vision.width, "vision_cfg.head_width", vision.head_width);
  }
  check_divides("text_cfg.width", text.width, "text_cfg.heads", text.heads);
  const std::string& mode = preprocess.resize_mode;
  if (mode != "shortest" && mode != "longest" && mode != "squash") {
    throw ConfigError("model config: resize_mode '" + mode + "' is unknown; preprocess_cfg; use shortest, longest or squash");
  }
  if (preprocess.interpolation != "bicubic" && preprocess.interpolation != "bilinear") {
    throw ConfigError("model config: interpolation '" + preprocess.interpolation + "' is unknown; preprocess_cfg; use bicubic or bilinear");
  }
}

ModelConfig parse_model_config(const std::string& text, const std::string& source) {
  Json json;
  try {
    json = Json::parse(text);
  } catch (const Json::exception& e) {
    throw ConfigError("model config: not JSON: " + std::string(e.what()) + "; " + source + "; give open_clip's model config");
  }
  ModelConfig c;
  if (json.is_object() && json.contains("model_cfg")) {
    Reader outer(json, source, "");
    outer.child("model_cfg");
    if (const Json* preprocess = outer.child("preprocess_cfg")) c.preprocess = read_preprocess(*preprocess, source);
    outer.finish();
    json = Json(json.at("model_cfg"));
  }
  Reader r(json, source, "");
  r.read("embed_dim", c.embed_dim);
  r.read("quick_gelu", c.quick_gelu);
  r.read("init_logit_scale", c.init_logit_scale);
  r.require("custom_text", false);
  if (const Json* bias = r.child("init_logit_bias"); bias != nullptr && !bias->is_null()) r.require("init_logit_bias", 0.0);
  if (const Json* vision = r.child("vision_cfg")) c.vision = read_vision(*vision, source);
  if (const Json* text_cfg = r.child("text_cfg")) c.text = read_text(*text_cfg, source);
  r.finish();
  c.validate();
  return c;
}

std::string to_json(const ModelConfig& c) {
  Json vision{
      {"image_size", c.vision.image_size}, {"layers", c.vision.layers}, {"width", c.vision.width}, {"head_width", c.vision.head_width}};
  if (!c.vision.is_resnet()) {
    vision["layers"] = c.vision.layers[0];
    vision["patch_size"] = c.vision.patch_size;
    vision["mlp_ratio"] = c.vision.mlp_ratio;
  }
  Json text{{"context_length", c.text.context_length},
            {"vocab_size", c.text.vocab_size},
            {"width", c.text.width},
            {"heads", c.text.heads},
            {"layers", c.text.layers}};
  if (c.text.mlp_ratio != 4.0) text["mlp_ratio"] = c.text.mlp_ratio;
  if (!c.text.hf_tokenizer_name.empty()) text["hf_tokenizer_name"] = c.text.hf_tokenizer_name;
  if (!c.text.tokenizer_kwargs.empty()) text["tokenizer_kwargs"] = Json::parse(c.text.tokenizer_kwargs);
  Json model{{"embed_dim", c.embed_dim}, {"vision_cfg", vision}, {"text_cfg", text}};
  if (c.quick_gelu) model["quick_gelu"] = true;
  const Json preprocess{{"mean", c.preprocess.mean},
                        {"std", c.preprocess.std},
                        {"interpolation", c.preprocess.interpolation},
                        {"resize_mode", c.preprocess.resize_mode}};
  return Json{{"model_cfg", model}, {"preprocess_cfg", preprocess}}.dump(2) + "\n";
}

std::vector<std::string> builtin_model_names() {
  std::vector<std::string> names;
  for (const Preset& preset : kPresets) names.emplace_back(preset.name);
  for (const char* name : kQuickGelu) names.push_back(std::string(name) + kQuickGeluSuffix);
  std::sort(names.begin(), names.end());
  return names;
}

std::optional<ModelConfig> builtin_model_config(const std::string& wanted) {
  std::string name = wanted;
  std::replace(name.begin(), name.end(), '/', '-');
  std::replace(name.begin(), name.end(), '@', '-');
  const std::string suffix = kQuickGeluSuffix;
  const bool quick = name.size() > suffix.size() && name.compare(name.size() - suffix.size(), suffix.size(), suffix) == 0;
  if (quick) {
    name.resize(name.size() - suffix.size());
    if (std::find(std::begin(kQuickGelu), std::end(kQuickGelu), name) == std::end(kQuickGelu)) return {};
  }
  for (const Preset& preset : kPresets) {
    if (name != preset.name) continue;
    ModelConfig config = parse_model_config(preset.json, "built-in " + name);
    config.quick_gelu = quick;
    return config;
  }
  return {};
}

ModelConfig find_model_config(const std::string& name_or_path) {
  if (const auto builtin = builtin_model_config(name_or_path)) return *builtin;
  std::filesystem::path path = name_or_path;
  std::error_code ignored;
  if (std::filesystem::is_directory(path, ignored)) path /= "open_clip_config.json";
  if (std::filesystem::is_regular_file(path, ignored)) {
    std::ifstream file(path);
    std::stringstream text;
    text << file.rdbuf();
    if (!file) throw FileError("model config: cannot be read; " + path.string() + "; check its permissions");
    return parse_model_config(text.str(), path.string());
  }
  throw ConfigError("unknown model '" + name_or_path + "'; --model; did you mean " + nearest_name(name_or_path, builtin_model_names()) +
                    "? Or give the path of an open_clip config .json or model folder");
}

}  // namespace twinlens
