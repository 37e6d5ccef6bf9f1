#pragma once
// Models with weights, in any of the layouts that people have:
//   OpenAI        their .pt files (TorchScript archives or state dicts), QuickGELU
//   open_clip     a checkpoint of this library's training, whose state.json holds the configuration; open_clip_config.json with
//   open_clip_model.safetensors, open_clip_pytorch_model.bin and the like; .pt files of its training;
//                 also CustomTextCLIP's names and timm's of the SigLIP towers
//   Hugging Face  config.json with model.safetensors or pytorch_model.bin (also in several shards), of CLIPModel and SiglipModel
// The layout is found out from the files. What is written is open_clip's hub layout unless asked otherwise (convert_model).

#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "twinlens/clip/model.h"

namespace twinlens {

enum class Layout : std::uint8_t { openai, open_clip, hugging_face };
const char* name_of(Layout layout);            // "openai", "open_clip", "hf"
Layout parse_layout(const std::string& name);  // throws ConfigError

// A folder or file with weights, looked at but not read.
struct ModelSource {
  std::vector<std::string> weights;  // files; several when sharded
  Layout layout = Layout::open_clip;
  ModelConfig config;
  bool config_inferred = false;     // from the shapes of the tensors, no config file being there
  bool config_in_metadata = false;  // of a safetensors file of this library, which carries it
  std::string guess;                // what had to be guessed for it, for people; empty when nothing
  bool own_names = false;           // a checkpoint of training: tensors are named as the model names them
  // Whether the weights were trained with QuickGELU, when something says so: a config beside them, the OpenAI layout, metadata, a known
  // name.
  std::optional<bool> quick_gelu;
  std::string quick_gelu_reason;
};

// Throws ConfigError when `model` is no folder or file with weights, or its config or layout is not understood. Errors say that `flag`
// named it.
ModelSource find_source(const std::string& model, const std::string& flag = "--model");

// The weights file that `model` (a folder or a file) names, the first of several; empty when it names none.
std::string weights_file(const std::string& model);

// The model of a run of training, given the run's folder (LOGS/NAME), its checkpoints/ or their `latest`: LOGS/NAME/model, else the
// newest checkpoint. Empty when there is none.
std::string model_inside(const std::string& folder);

// Config and weights. Throws ConfigError for a name without weights or weights that do not fit, FileError for unreadable files.
std::unique_ptr<Clip> load_model(const std::string& model);
std::unique_ptr<Clip> load_model(const ModelSource& source);

// Copies the weights of `from` (as above) into a model whose configuration may differ in image size and context length: then position
// embeddings are resized as open_clip does (bicubic with antialiasing over the grid; linear over the text). A ConfigError names an
// activation that the weights were not trained with.
void load_weights(Clip& model, const std::string& from, const std::string& flag = "--model");

// Writes the hub layout into `folder`, each file atomically.
void save_model(Clip& model, const std::string& folder);

// Rewrites weights and configuration in another layout, bit for bit and with the dtypes they have. Files that appear in `folder`:
//   openai     model.safetensors with OpenAI's extra tensors, and open_clip_config.json
//   open_clip  open_clip_config.json, open_clip_model.safetensors
//   hf         config.json, preprocessor_config.json, model.safetensors
// Tokenizer files go along. With `torch`, as torch.save writes a state dict: model.pt, open_clip_pytorch_model.bin, pytorch_model.bin.
enum class WeightFormat : std::uint8_t { safetensors, torch };
struct Converted {
  ModelSource from;
  std::vector<std::string> files;
  std::vector<std::string> notes;  // what readers of the result should know
};
Converted convert_model(const std::string& model, Layout to, const std::string& folder, WeightFormat format = WeightFormat::safetensors);

}  // namespace twinlens
