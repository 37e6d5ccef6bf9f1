#pragma once
// Model configurations in open_clip's JSON keys (open_clip src/open_clip/model.py dataclasses). A configuration names everything about the
// numbers a model computes; where weights come from is not its matter.

#include <array>
#include <filesystem>
#include <optional>
#include <string>
#include <vector>

#include "twinlens/kernels/activation.h"

namespace twinlens {

struct VisionConfig {
  std::vector<int> layers{12};  // one number: ViT with so many blocks; four: ModifiedResNet stages
  int width = 768;
  int head_width = 64;
  double mlp_ratio = 4.0;
  int patch_size = 16;
  int image_size = 224;
  double ls_init_value = 0.0;     // layer scale (Touvron et al. 2021, arXiv:2103.17239) after attention and MLP; 0: none
  bool attentional_pool = false;  // CoCa's pooler of attn_pooler_queries learned queries (Yu et al. 2022, arXiv:2205.01917)
  int attn_pooler_queries = 256, attn_pooler_heads = 8;
  bool no_ln_pre = false;
  std::string pos_embed_type = "learnable";  // or sin_cos_2d: fixed
  double patch_dropout = 0.0;                // share of the patches that training leaves out (patch_dropout.h)
  bool final_ln_after_pool = false;          // ln_post after pooling; matters for avg only
  std::string pool_type = "tok";             // or avg: the mean of the patch tokens
  double eps = 1e-5;                         // norm_kwargs.eps
  bool gelu_tanh = false;                    // act_kwargs.approximate = tanh
  // A SigLIP trunk of timm, e.g. vit_base_patch16_siglip_224: no class token, no ln_pre, biased patch embedding, pooled by attention with
  // one learned query and an MLP ("map"), no projection. parse_model_config sets width, layers, patch_size, no_ln_pre and the like by it;
  // who sets it here sets them, too, and validate() says which. Empty: CLIP's own towers.
  std::string timm_model_name{};

  bool is_resnet() const { return layers.size() > 1; }
  bool is_siglip() const { return !timm_model_name.empty(); }
  // The last block is needed for the class token only.
  bool pools_one_token() const { return !is_resnet() && !is_siglip() && !attentional_pool && pool_type == "tok"; }
  int heads() const { return is_resnet() ? width * 32 / head_width : width / head_width; }
  int grid() const { return is_resnet() ? image_size / 32 : image_size / patch_size; }
  int patches() const { return grid() * grid(); }
  int tokens() const { return grid() * grid() + (is_siglip() ? 0 : 1); }
};

struct TextConfig {
  int context_length = 77;
  int vocab_size = 49408;
  int width = 512;
  int heads = 8;
  int layers = 12;
  double mlp_ratio = 4.0;
  double ls_init_value = 0.0;        // 0: none
  bool no_causal_mask = false;       // every token sees every token, padding included
  std::string pool_type = "argmax";  // eos: the first eos_id; last, first: that position of the padded row
  int eos_id = 2;                    // for pool_type eos
  int pad_id = 0;                    // fills a caption up to the context length, where the tower reads padding
  bool proj_bias = false;
  double eps = 1e-5;                // norm_kwargs.eps
  bool gelu_tanh = false;           // act_kwargs.approximate = tanh
  std::string hf_tokenizer_name{};  // empty: CLIP's own tokenizer
  std::string tokenizer_kwargs{};   // the JSON object of that key, or empty

  // The tower reads the end-of-text token and nothing after it, so captions need no padding.
  bool needs_no_padding() const { return !no_causal_mask && (pool_type == "argmax" || pool_type == "eos"); }
};

// What open_clip_config.json calls preprocess_cfg.
struct PreprocessConfig {
  std::array<float, 3> mean{0.48145466F, 0.4578275F, 0.40821073F};
  std::array<float, 3> std{0.26862954F, 0.26130258F, 0.27577711F};
  std::string interpolation = "bicubic";  // or bilinear
  std::string resize_mode = "shortest";   // or longest, squash
  int fill_color = 0;                     // of the rims that longest leaves, 0 to 255
};

struct ModelConfig {
  int embed_dim = 512;
  bool quick_gelu = false;
  bool custom_text = false;                      // open_clip's CustomTextCLIP: its names of the text tower begin with "text."
  double init_logit_scale = 2.6592600369327779;  // ln(1 / 0.07)
  std::optional<double> init_logit_bias;         // sigmoid loss (Zhai et al. 2023, arXiv:2303.15343); absent: no bias
  VisionConfig vision;
  TextConfig text;
  PreprocessConfig preprocess;

  Activation vision_activation() const;
  Activation text_activation() const;
  // Throws ConfigError naming the field, its value, `source` and what it must be.
  void validate(const std::string& source = "model config") const;
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
// nearest known one and the flag that gave it.
ModelConfig find_model_config(const std::string& name_or_path, const std::string& flag = "--model");

}  // namespace twinlens
