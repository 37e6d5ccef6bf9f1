#include "clip/src/formats/hugging_face.h"

#include <array>
#include <cmath>
#include <nlohmann/json.hpp>

#include "clip/src/formats/infer_config.h"

#include "twinlens/kernels/error.h"

namespace twinlens {
namespace {

using Json = nlohmann::ordered_json;

constexpr int kStandardVocabulary = 49408;
constexpr int kLegacyEnd = 2;  // transformers then reads the largest id, as OpenAI does

[[noreturn]] void refuse(const std::string& what, const std::string& source) {
  throw ConfigError("Hugging Face config: " + what + "; " + source + "; twinlens reads those of CLIPModel and SiglipModel");
}

Json parse(const std::string& text, const std::string& source) {
  Json json = Json::parse(text, nullptr, false);
  if (!json.is_object()) refuse("not a JSON object", source);
  return json;
}

template <class T>
T get(const Json& json, const char* key, const T& otherwise, const std::string& source) {
  const auto it = json.find(key);
  if (it == json.end() || it->is_null()) return otherwise;
  try {
    return it->template get<T>();
  } catch (const Json::exception&) {
    refuse(std::string("'") + key + "' has the wrong type: " + it->dump().substr(0, 100), source);
  }
}

// Old configs have text_config_dict beside text_config; it wins.
Json section(const Json& json, const std::string& name) {
  Json out = json.contains(name) && json.at(name).is_object() ? json.at(name) : Json::object();
  const std::string legacy = name + "_dict";
  if (json.contains(legacy) && json.at(legacy).is_object()) out.update(json.at(legacy));
  return out;
}

Activation activation_of(const std::string& name, const std::string& source) {
  if (name == "quick_gelu") return Activation::quick_gelu;
  if (name == "gelu") return Activation::gelu;
  if (name == "gelu_pytorch_tanh" || name == "gelu_new") return Activation::gelu_tanh;
  refuse("hidden_act '" + name + "'", source);
}

const char* name_of_activation(Activation activation) {
  if (activation == Activation::quick_gelu) return "quick_gelu";
  return activation == Activation::gelu_tanh ? "gelu_pytorch_tanh" : "gelu";
}

struct Tower {
  int hidden, intermediate, layers, heads;
  double eps;
  Activation activation;
};

Tower read_tower(const Json& json, const Tower& standard, const char* activation, const std::string& source) {
  Tower t{};
  t.hidden = get(json, "hidden_size", standard.hidden, source);
  t.intermediate = get(json, "intermediate_size", standard.intermediate, source);
  t.layers = get(json, "num_hidden_layers", standard.layers, source);
  t.heads = get(json, "num_attention_heads", standard.heads, source);
  t.eps = get(json, "layer_norm_eps", standard.eps, source);
  t.activation = activation_of(get<std::string>(json, "hidden_act", activation, source), source);
  if (t.hidden <= 0 || t.heads <= 0 || t.layers <= 0 || t.intermediate <= 0 || t.hidden % t.heads != 0) {
    refuse("hidden_size " + std::to_string(t.hidden) + " with " + std::to_string(t.heads) + " heads and " + std::to_string(t.layers) +
               " layers",
           source);
  }
  return t;
}

void set_towers(ModelConfig& c, const Tower& vision, const Tower& text, const std::string& source) {
  c.vision.width = vision.hidden;
  c.vision.layers = {vision.layers};
  c.vision.head_width = vision.hidden / vision.heads;
  c.vision.mlp_ratio = mlp_ratio_of(vision.intermediate, vision.hidden);
  c.vision.eps = vision.eps;
  c.vision.gelu_tanh = vision.activation == Activation::gelu_tanh;
  c.text.width = text.hidden;
  c.text.layers = text.layers;
  c.text.heads = text.heads;
  c.text.mlp_ratio = mlp_ratio_of(text.intermediate, text.hidden);
  c.text.eps = text.eps;
  c.text.gelu_tanh = text.activation == Activation::gelu_tanh;
  if ((vision.activation == Activation::quick_gelu) != (text.activation == Activation::quick_gelu)) {
    refuse("QuickGELU in one tower and GELU in the other", source);
  }
  c.quick_gelu = vision.activation == Activation::quick_gelu;
}

ModelConfig read_clip(const Json& json, const std::string& source) {
  const Json vision = section(json, "vision_config"), text = section(json, "text_config");
  ModelConfig c;
  c.embed_dim = get(json, "projection_dim", 512, source);
  c.init_logit_scale = get(json, "logit_scale_init_value", c.init_logit_scale, source);
  if (c.init_logit_scale == 2.6592) c.init_logit_scale = ModelConfig{}.init_logit_scale;  // rounded there
  set_towers(c, read_tower(vision, {768, 3072, 12, 12, 1e-5, {}}, "quick_gelu", source),
             read_tower(text, {512, 2048, 12, 8, 1e-5, {}}, "quick_gelu", source), source);
  c.vision.patch_size = get(vision, "patch_size", 32, source);
  c.vision.image_size = get(vision, "image_size", 224, source);
  c.text.vocab_size = get(text, "vocab_size", kStandardVocabulary, source);
  c.text.context_length = get(text, "max_position_embeddings", 77, source);
  // The largest id ends a caption in CLIP's own vocabulary, so that it and the argmax are one.
  const int end = get(text, "eos_token_id", kStandardVocabulary - 1, source);
  if (end != kLegacyEnd && end != c.text.vocab_size - 1) {
    c.text.pool_type = "eos";
    c.text.eos_id = end;
  }
  return c;
}

// timm's name of a SigLIP trunk of these sizes.
std::string trunk_name(const Tower& t, int patch, int image) {
  struct Size {
    const char* name;
    int width, layers, heads, hidden;
  };
  constexpr Size kSizes[] = {
      {"base", 768, 12, 12, 3072}, {"large", 1024, 24, 16, 4096}, {"so400m", 1152, 27, 16, 4304}, {"giantopt", 1536, 40, 16, 6144}};
  std::string size = "custom";
  for (const Size& s : kSizes) {
    if (s.width == t.hidden && s.layers == t.layers && s.heads == t.heads && s.hidden == t.intermediate) size = s.name;
  }
  return "vit_" + size + "_patch" + std::to_string(patch) + "_siglip_" + std::to_string(image);
}

ModelConfig read_siglip(const Json& json, const std::string& source) {
  const Json vision = section(json, "vision_config"), text = section(json, "text_config");
  ModelConfig c;
  const Tower v = read_tower(vision, {768, 3072, 12, 12, 1e-6, {}}, "gelu_pytorch_tanh", source);
  const Tower t = read_tower(text, {768, 3072, 12, 12, 1e-6, {}}, "gelu_pytorch_tanh", source);
  set_towers(c, v, t, source);
  if (!get(vision, "vision_use_head", true, source)) refuse("a SigLIP without pooling head", source);
  c.vision.patch_size = get(vision, "patch_size", 16, source);
  c.vision.image_size = get(vision, "image_size", 224, source);
  c.vision.no_ln_pre = true;
  c.vision.timm_model_name = trunk_name(v, c.vision.patch_size, c.vision.image_size);
  if (c.vision.timm_model_name.find("so400m") != std::string::npos) c.vision.mlp_ratio = 3.7362;
  if (t.hidden == 1152 && t.intermediate == 4304) c.text.mlp_ratio = 3.7362;
  c.text.vocab_size = get(text, "vocab_size", 32000, source);
  c.text.context_length = get(text, "max_position_embeddings", 64, source);
  // 1 is the default, which transformers writes for SigLIP 2, too. That is padded with Gemma's 0.
  const bool gemma = c.text.vocab_size >= 256000;
  const int pad = get(text, "pad_token_id", 1, source);
  c.text.pad_id = gemma && pad == 1 ? 0 : pad;
  c.text.hf_tokenizer_name = gemma ? "timm/ViT-B-16-SigLIP2" : "timm/ViT-B-16-SigLIP";
  c.text.tokenizer_kwargs = R"({"clean":"canonicalize"})";
  c.text.no_causal_mask = true;
  c.text.pool_type = "last";
  c.text.proj_bias = true;
  c.embed_dim = get(text, "projection_size", t.hidden, source);
  c.custom_text = true;
  c.init_logit_bias = -10.0;
  c.preprocess.mean = c.preprocess.std = {0.5F, 0.5F, 0.5F};
  c.preprocess.resize_mode = "squash";
  return c;
}

Json tower_json(int width, double mlp_ratio, int layers, int heads, double eps, Activation activation) {
  return Json{{"hidden_size", width},        {"intermediate_size", static_cast<int>(width * mlp_ratio)},
              {"num_hidden_layers", layers}, {"num_attention_heads", heads},
              {"layer_norm_eps", eps},       {"hidden_act", name_of_activation(activation)},
              {"attention_dropout", 0.0}};
}

}  // namespace

ModelConfig parse_hugging_face_config(const std::string& text, const std::string& source) {
  const Json json = parse(text, source);
  const std::string type = get<std::string>(json, "model_type", "", source);
  if (type != "clip" && type != "siglip") refuse("model_type '" + type + "'", source);
  ModelConfig c = type == "clip" ? read_clip(json, source) : read_siglip(json, source);
  c.validate();
  return c;
}

void parse_hugging_face_preprocess(const std::string& text, const std::string& source, ModelConfig& model) {
  const Json json = parse(text, source);
  PreprocessConfig& out = model.preprocess;
  const auto colours = [&](const char* key, std::array<float, 3>& values) {
    if (json.contains(key) && json.at(key).is_array() && json.at(key).size() != 3)
      refuse(std::string("'") + key + "' is not 3 numbers: " + json.at(key).dump().substr(0, 100), source);
    values = get(json, key, values, source);
  };
  colours("image_mean", out.mean);
  colours("image_std", out.std);
  if (!get(json, "do_normalize", true, source)) {
    out.mean = {0.0F, 0.0F, 0.0F};
    out.std = {1.0F, 1.0F, 1.0F};
  }
  const double scale = get(json, "rescale_factor", 1.0 / 255.0, source);
  if (!get(json, "do_rescale", true, source) || !(std::abs(scale * 255.0 - 1.0) < 1e-3))
    refuse("pixels that are not divided by 255", source);
  if (!get(json, "do_resize", true, source)) refuse("pictures that are not resized", source);
  // PIL's numbers
  const int resample = get(json, "resample", 3, source);
  if (resample != 2 && resample != 3) refuse("resample " + std::to_string(resample), source);
  out.interpolation = resample == 2 ? "bilinear" : "bicubic";
  const Json size = json.contains("size") ? json.at("size") : Json();
  if (size.is_object() && size.contains("longest_edge")) refuse("pictures that are resized by their longest side", source);
  const int side = model.vision.image_size;
  const auto require_side = [&](int edge) {  // of a larger picture the crop would leave out a rim
    if (edge != side) refuse("pictures resized to " + std::to_string(edge) + " for a model of " + std::to_string(side), source);
  };
  if (size.is_number_integer()) require_side(size.get<int>());
  for (const char* key : {"shortest_edge", "height", "width"}) {
    if (size.is_object()) require_side(get(size, key, side, source));
  }
  // Resized to exactly these two sides; a crop to the same size then changes nothing.
  if (!size.is_null()) out.resize_mode = size.is_object() && size.contains("height") ? "squash" : "shortest";
}

std::string hugging_face_config(const ModelConfig& c) {
  const bool siglip = c.vision.is_siglip();
  Json text = tower_json(c.text.width, c.text.mlp_ratio, c.text.layers, c.text.heads, c.text.eps, c.text_activation());
  text["vocab_size"] = c.text.vocab_size;
  text["max_position_embeddings"] = c.text.context_length;
  Json vision = tower_json(c.vision.width, c.vision.mlp_ratio, c.vision.layers[0], c.vision.heads(), c.vision.eps, c.vision_activation());
  vision["image_size"] = c.vision.image_size;
  vision["patch_size"] = c.vision.patch_size;
  Json out{
      {"architectures", {siglip ? "SiglipModel" : "CLIPModel"}}, {"model_type", siglip ? "siglip" : "clip"}, {"torch_dtype", "float32"}};
  if (siglip) {
    text["model_type"] = "siglip_text_model";
    text["projection_size"] = c.embed_dim;
    text["pad_token_id"] = c.text.pad_id;
    vision["model_type"] = "siglip_vision_model";
  } else {
    text["model_type"] = "clip_text_model";
    text["projection_dim"] = vision["projection_dim"] = out["projection_dim"] = c.embed_dim;
    vision["model_type"] = "clip_vision_model";
    out["logit_scale_init_value"] = c.init_logit_scale;
    const bool standard = c.text.vocab_size == kStandardVocabulary;
    text["bos_token_id"] = standard ? kStandardVocabulary - 2 : 0;
    text["eos_token_id"] = c.text.pool_type == "eos" ? c.text.eos_id : standard ? kStandardVocabulary - 1 : kLegacyEnd;
    text["pad_token_id"] = standard ? kStandardVocabulary - 1 : c.text.pad_id;
  }
  out["text_config"] = text;
  out["vision_config"] = vision;
  return out.dump(2) + "\n";
}

std::string hugging_face_preprocess(const ModelConfig& c) {
  const int side = c.vision.image_size;
  const bool squash = c.preprocess.resize_mode == "squash";
  const std::string family = c.vision.is_siglip() ? "Siglip" : "CLIP";
  Json out{{"image_processor_type", family + "ImageProcessor"},
           {"processor_class", family + "Processor"},
           {"do_resize", true},
           {"size", squash ? Json{{"height", side}, {"width", side}} : Json{{"shortest_edge", side}}},
           {"resample", c.preprocess.interpolation == "bilinear" ? 2 : 3}};
  if (!squash) {
    out["do_center_crop"] = true;
    out["crop_size"] = {{"height", side}, {"width", side}};
  }
  out["do_rescale"] = true;
  out["rescale_factor"] = 1.0 / 255.0;
  out["do_normalize"] = true;
  out["image_mean"] = c.preprocess.mean;
  out["image_std"] = c.preprocess.std;
  out["do_convert_rgb"] = true;
  return out.dump(2) + "\n";
}

}  // namespace twinlens
