#pragma once
// Model configurations in open_clip's JSON keys (open_clip src/open_clip/model.py dataclasses). A configuration names everything about the
// numbers a model computes; where weights come from is not its matter.

#include <array>
#include <filesystem>
#include <optional>
#include <string>
#include <vector>

namespace twinlens {

struct VisionConfig {
  std::vector<int> layers{12};  // one number: ViT with so many blocks; four: ModifiedResNet stages
  int width = 768;
  int head_width = 64;
  double mlp_ratio = 4.0;
  int patch_size = 16;
  int image_size = 224;

  bool is_resnet() const { return layers.size() > 1; }
  int heads() const { return is_resnet() ? width * 32 / head_width : width / head_width; }
  int grid() const { return is_resnet() ? image_size / 32 : image_size / patch_size; }
};

struct TextConfig {
  int context_length = 77;
  int vocab_size = 49408;
  int width = 512;
  int heads = 8;
  int layers = 12;
  double mlp_ratio = 4.0;
  std::string hf_tokenizer_name;  // empty: CLIP's own tokenizer
  std::string tokenizer_kwargs;   // the JSON object of that key, or empty
};

// What open_clip_config.json calls preprocess_cfg.
struct PreprocessConfig {
  std::array<float, 3> mean{0.48145466F, 0.4578275F, 0.40821073F};
  std::array<float, 3> std{0.26862954F, 0.26130258F, 0.27577711F};
  std::string interpolation = "bicubic";  // or bilinear
  std::string resize_mode = "shortest";   // or longest, squash
};

struct ModelConfig {
  int embed_dim = 512;
  bool quick_gelu = false;
  double init_logit_scale = 2.6592600369327779;  // ln(1 / 0.07)
  VisionConfig vision;
  TextConfig text;
  PreprocessConfig preprocess;

  // Throws ConfigError naming the field, its value and what it must be.
  void validate() const;
};

// From the text of an open_clip model config, or of an open_clip_config.json with model_cfg and preprocess_cfg. Throws ConfigError naming
// `source`, the key and the remedy; a key whose value changes the numbers and is not supported is refused, never ignored.
ModelConfig parse_model_config(const std::string& json, const std::string& source);
// As open_clip_config.json: {"model_cfg": ..., "preprocess_cfg": ...}.
std::string to_json(const ModelConfig& config);

// Built-in names, e.g. ViT-B-32; "/" for "-" is accepted (ViT-B/32).
std::vector<std::string> builtin_model_names();
std::optional<ModelConfig> builtin_model_config(const std::string& name);

// A built-in name, or the path of a JSON file, or of a folder with open_clip_config.json. An unknown name is a ConfigError that says the
// nearest known one.
ModelConfig find_model_config(const std::string& name_or_path);

}  // namespace twinlens
