#include "twinlens/clip/pretrained.h"

#include <algorithm>
#include <filesystem>
#include <nlohmann/json.hpp>

#include "clip/src/checkpoint.h"
#include "clip/src/formats/hugging_face.h"
#include "clip/src/formats/infer_config.h"
#include "clip/src/formats/layout.h"
#include "clip/src/formats/resize_positions.h"
#include "clip/src/formats/torch_writer.h"
#include "clip/src/formats/weights.h"
#include "clip/src/model_path.h"

#include "twinlens/clip/tokenizer_files.h"
#include "twinlens/core/autograd.h"
#include "twinlens/core/check.h"
#include "twinlens/core/file.h"
#include "twinlens/core/ops.h"
#include "twinlens/core/safetensors.h"
#include "twinlens/kernels/error.h"

namespace twinlens {
namespace {

namespace fs = std::filesystem;
constexpr const char* kWeights = "open_clip_model.safetensors";
constexpr const char* kConfig = "open_clip_config.json";
constexpr const char* kHuggingFaceConfig = "config.json";
constexpr const char* kTrainState = "state.json";  // of a checkpoint of training (checkpoint.h)
// In the metadata of safetensors; the first also in the config beside weights in OpenAI's layout.
constexpr const char* kActivationKey = "activation";
constexpr const char* kConfigKey = "open_clip_config";  // the config, for weights without the file
// In the order in which a folder is searched (open_clip factory.py, transformers).
constexpr const char* kWeightNames[] = {kWeights,
                                        "open_clip_pytorch_model.safetensors",
                                        "open_clip_pytorch_model.bin",
                                        "open_clip_model.pth",
                                        "model.safetensors",
                                        "pytorch_model.bin",
                                        "model.pt",
                                        "model.pth"};
constexpr const char* kIndexNames[] = {"model.safetensors.index.json", "pytorch_model.bin.index.json"};

bool has_weights_extension(const fs::path& path) {
  for (const char* extension : {".safetensors", ".pt", ".pth", ".bin", ".ckpt"}) {
    if (path.extension() == extension) return true;
  }
  return false;
}

// Shards of a large model, which its index names. They lie beside it: a name with a folder in it is refused.
std::vector<std::string> shards_of(const fs::path& index) {
  const nlohmann::json json = nlohmann::json::parse(read_file(index.string()), nullptr, false);
  std::set<std::string> names;
  if (json.is_object() && json.contains("weight_map") && json["weight_map"].is_object()) {
    for (const auto& [tensor, file] : json["weight_map"].items()) {
      if (file.is_string()) names.insert(file.get<std::string>());
    }
  }
  std::vector<std::string> out;
  for (const std::string& name : names) {
    if (fs::path(name).filename() != name || name == "..") {
      throw FileError("an index of weights names '" + name + "', which does not lie beside it; " + index.string() +
                      "; fetch the model again");
    }
    out.push_back((index.parent_path() / name).string());
  }
  if (out.empty()) throw FileError("an index of weights names no file; " + index.string() + "; fetch the model again");
  return out;
}

std::vector<std::string> weights_files(const std::string& model) {
  const fs::path path = model;
  if (is_folder(path)) {
    for (const char* name : kWeightNames) {
      if (is_file(path / name)) return {(path / name).string()};
    }
    for (const char* name : kIndexNames) {
      if (is_file(path / name)) return shards_of(path / name);
    }
  } else if (has_weights_extension(path) && is_file(path)) {
    return {path.string()};
  }
  return {};
}

// The configuration that training has written into its checkpoint; none when the file is of something else.
std::optional<ModelConfig> config_of_checkpoint(const fs::path& state) {
  if (!is_file(state)) return {};
  const auto json = nlohmann::ordered_json::parse(read_file(state.string()), nullptr, false);
  if (!json.is_object() || !json.contains("settings") || !json["settings"].is_object() || !json["settings"].contains("model")) return {};
  return parse_model_config(json["settings"]["model"].dump(), state.string());
}

std::string lower(std::string text) {
  std::transform(text.begin(), text.end(), text.begin(), [](unsigned char c) { return static_cast<char>(std::tolower(c)); });
  return text;
}

// Names under which weights are published (open_clip pretrained.py): those of MetaCLIP, DFN and "quickgelu" have QuickGELU; the others of
// these have not.
std::optional<bool> activation_by_name(const std::string& file) {
  const std::string name = lower(fs::path(file).filename().string());
  for (const char* part : {"quickgelu", "metaclip", "dfn2b", "dfn5b"}) {
    if (name.find(part) != std::string::npos) return true;
  }
  for (const char* part : {"laion2b", "datacomp", "commonpool"}) {
    if (name.find(part) != std::string::npos) return false;
  }
  return {};
}

// `text`: of open_clip_config.json beside the weights, if there is one.
void note_activation(ModelSource& source, const WeightFiles& files, const fs::path& config, const std::string& text) {
  const auto says = [&](bool quick, const std::string& reason) {
    if (source.quick_gelu.has_value()) return;
    source.quick_gelu = quick;
    source.quick_gelu_reason = reason;
  };
  if (const auto it = files.metadata().find(kActivationKey); it != files.metadata().end()) {
    says(it->second == "quick_gelu", "its metadata says " + it->second);
  }
  if (const auto json = nlohmann::json::parse(text, nullptr, false); json.is_object() && json.contains(kActivationKey))
    says(json[kActivationKey] == "quick_gelu", config.filename().string() + " says so of the weights");
  if (source.layout == Layout::openai) says(true, "it is a checkpoint of OpenAI's CLIP");
  if (!source.config_inferred) says(source.config.quick_gelu, config.filename().string() + " says so");
  if (const auto quick = activation_by_name(source.weights.front())) says(*quick, "its name says so");
}

std::set<std::string> names_of(const std::vector<LayoutPiece>& pieces) {
  std::set<std::string> out;
  for (const LayoutPiece& piece : pieces) {
    for (const LayoutPiece::Part& part : piece.theirs) out.insert(part.name);
  }
  return out;
}

// A checkpoint of training names its tensors as the model does, whatever the model's layout.
std::vector<LayoutPiece> pieces_of(const ModelSource& source) {
  if (!source.own_names) return layout_pieces(source.layout, source.config);
  std::vector<LayoutPiece> out;
  for (const auto& names : {parameter_names(source.config), buffer_names(source.config)}) {
    for (const std::string& name : names) out.push_back({{{name}}, {{name}}});
  }
  return out;
}

// The tensors of a source as the model names them.
StateDict read_own(const ModelSource& source, const WeightFiles& files) {
  const std::vector<LayoutPiece> pieces = pieces_of(source);
  const std::set<std::string> wanted = names_of(pieces);
  std::vector<std::string> missing, unexpected;
  for (const std::string& name : wanted) {
    if (files.shapes().count(name) == 0) missing.push_back(name);
  }
  for (const auto& [name, shape] : files.shapes()) {
    if (wanted.count(name) == 0 && !is_left_out(name)) unexpected.push_back(name);
  }
  if (!missing.empty() || !unexpected.empty()) {
    throw ConfigError("weights do not fit the model;" + (missing.empty() ? "" : " missing:" + few_of(missing) + ";") +
                      (unexpected.empty() ? "" : " unexpected:" + few_of(unexpected) + ";") + " " + source.weights.front() +
                      "; use the model configuration that the weights were made with");
  }
  return from_layout(pieces, files.read(wanted));
}

std::string activation_name(bool quick) { return quick ? "QuickGELU" : "GELU"; }

void check_activation(const ModelConfig& model, const ModelSource& source) {
  if (!source.quick_gelu.has_value() || *source.quick_gelu == model.quick_gelu) return;
  throw ConfigError("activation mismatch: the weights were trained with " + activation_name(*source.quick_gelu) + " (" +
                    source.quick_gelu_reason + ") and the model computes " + activation_name(model.quick_gelu) + "; " +
                    source.weights.front() + "; choose the model " + (*source.quick_gelu ? "with" : "without") +
                    " -quickgelu in its name (quick_gelu in its config)");
}

// A config beside the weights says their heads, which show in no shape.
void check_heads(const ModelConfig& model, const ModelSource& source) {
  if (source.config_inferred) return;
  const auto check = [&](const char* tower, int width, int own_width, int heads, int own_heads) {
    if (width != own_width || heads == own_heads) return;
    throw ConfigError("heads mismatch: the " + std::string(tower) + " tower of the weights has " + std::to_string(own_heads) +
                      " heads and that of the model " + std::to_string(heads) + "; " + source.weights.front() +
                      "; use the model configuration that the weights were made with");
  };
  const ModelConfig& own = source.config;
  check("image", model.vision.width, own.vision.width, model.vision.heads(), own.vision.heads());
  check("text", model.text.width, own.text.width, model.text.heads, own.text.heads);
}

void resize_positions(StateDict& weights, const Clip& model) {
  const ModelConfig& c = model.config;
  const auto resize = [&](const char* name, std::int64_t rows, const auto& resized) {
    const auto it = weights.find(name);
    if (it == weights.end() || it->second.rank() != 2 || it->second.size(0) == rows) return;
    it->second = resized(it->second.to(DType::f32));
  };
  const std::int64_t grid = c.vision.grid(), extra = c.vision.is_resnet() ? 1 : c.vision.tokens() - grid * grid;
  const auto by_grid = [&](const Tensor& x) { return resize_grid_positions(x, extra, grid); };
  resize("visual.positional_embedding", extra + grid * grid, by_grid);
  resize("visual.attnpool.positional_embedding", extra + grid * grid, by_grid);
  resize("positional_embedding", c.text.context_length, [&](const Tensor& x) { return resize_text_positions(x, c.text.context_length); });
}

const char* activation_key_of(const ModelConfig& config) {
  return config.quick_gelu ? "quick_gelu" : config.text.gelu_tanh ? "gelu_tanh" : "gelu";
}

std::map<std::string, std::string> metadata_of(const ModelConfig& config) {
  return {
      {"format", "pt"}, {kActivationKey, activation_key_of(config)}, {kConfigKey, nlohmann::ordered_json::parse(to_json(config)).dump()}};
}

// What OpenAI's code computes otherwise, whatever stands beside the weights.
std::vector<std::string> notes_for_openai(const ModelConfig& c) {
  std::vector<std::string> notes;
  if (!c.quick_gelu)
    notes.push_back("OpenAI's code always computes QuickGELU, and this model was trained with GELU: there it gives other numbers");
  if (c.vision.head_width != 64 || c.text.heads * 64 != c.text.width)
    notes.push_back("OpenAI's code takes heads of 64 columns, and this model has others: there it gives other numbers");
  return notes;
}

// A folder's weights are those that are found first there: the file to be written must be the only one.
void check_alone(const fs::path& folder, const char* weights_name) {
  std::vector<const char*> names(std::begin(kWeightNames), std::end(kWeightNames));
  names.insert(names.end(), std::begin(kIndexNames), std::end(kIndexNames));
  for (const char* name : names) {
    if (name == std::string(weights_name) || !is_file(folder / name)) continue;
    throw ConfigError("the folder holds weights already, which one could take for the converted ones; " + (folder / name).string() +
                      "; name another folder with --output");
  }
}

}  // namespace

const char* name_of(Layout layout) {
  switch (layout) {
    case Layout::openai: return "openai";
    case Layout::open_clip: return "open_clip";
    case Layout::hugging_face: return "hf";
  }
  return "?";
}

Layout parse_layout(const std::string& name) {
  for (const Layout layout : {Layout::openai, Layout::open_clip, Layout::hugging_face}) {
    if (name == name_of(layout)) return layout;
  }
  throw ConfigError("layout '" + name + "' is unknown; --to; use openai, open_clip or hf");
}

std::string weights_file(const std::string& model) {
  const std::vector<std::string> files = weights_files(model);
  return files.empty() ? std::string() : files.front();
}

std::string model_inside(const std::string& folder) {
  fs::path path = fs::path(folder).lexically_normal();
  if (path.filename() == kLatest && is_file(path)) path = path.parent_path();
  if (const fs::path model = path / "model"; !weights_files(model.string()).empty()) return model.string();
  for (const fs::path& checkpoints : {path / "checkpoints", path}) {
    for (const fs::path& checkpoint : list_checkpoints(checkpoints)) {
      if (!weights_files(checkpoint.string()).empty()) return checkpoint.string();
    }
  }
  return {};
}

namespace {

// A configuration of its own is not needed where the weights are read as those of a model that is there.
ModelSource look_at(const std::string& model, const std::string& flag) {
  ModelSource source;
  source.weights = weights_files(model);
  if (source.weights.empty()) {
    if (const std::string inside = model_inside(model); !inside.empty()) {
      throw ConfigError("'" + model + "' belongs to a training run and is no model; " + flag + "; its model is in " + inside);
    }
    const bool known = fs::exists(status_of(model)) || builtin_model_config(model).has_value();
    throw ConfigError("model '" + model + (known ? "' has no weights; " : "' is not there; ") + flag + "; give a model folder with " +
                      kWeights +
                      ", such as LOGS/NAME/model, or a checkpoint of OpenAI's CLIP, open_clip or Hugging Face; nothing is downloaded");
  }
  const WeightFiles files(source.weights);
  source.layout = detect_layout(files.names(), source.weights.front());
  if (files.is_script() && source.layout == Layout::open_clip && files.shapes().count("visual.conv1.weight") != 0)
    source.layout = Layout::openai;
  const fs::path folder = fs::path(source.weights.front()).parent_path();
  fs::path config = folder / kConfig;
  std::string text;
  if (is_file(config)) {
    text = read_file(config.string());
    source.config = parse_model_config(text, config.string());
  } else if (const auto trained = config_of_checkpoint(folder / kTrainState); trained.has_value() && source.layout == Layout::open_clip) {
    config = folder / kTrainState;
    source.config = *trained;
    source.own_names = true;
  } else if (is_file(folder / kHuggingFaceConfig) && source.layout == Layout::hugging_face) {
    config = folder / kHuggingFaceConfig;
    source.config = parse_hugging_face_config(read_file(config.string()), config.string());
    if (const fs::path preprocess = folder / "preprocessor_config.json"; is_file(preprocess)) {
      parse_hugging_face_preprocess(read_file(preprocess.string()), preprocess.string(), source.config);
    }
  } else if (const auto own = files.metadata().find(kConfigKey); own != files.metadata().end()) {
    config = source.weights.front();
    source.config = parse_model_config(own->second, "metadata of " + config.string());
    source.config_in_metadata = true;
  } else if (source.layout == Layout::hugging_face) {
    throw ConfigError("weights of Hugging Face without their config.json; " + source.weights.front() + "; put it beside them");
  } else {
    source.config_inferred = true;
    source.config = infer_config(files.shapes(), source.weights.front());
  }
  note_activation(source, files, config, text);
  if (source.config_inferred) source.config.quick_gelu = source.quick_gelu.value_or(false);
  return source;
}

}  // namespace

ModelSource find_source(const std::string& model, const std::string& flag) {
  ModelSource source = look_at(model, flag);
  const std::string guess = source.config_inferred ? not_in_shapes(source.config) : std::string();
  if (!guess.empty()) {
    throw ConfigError("the model is one " + guess + "; " + source.weights.front() +
                      "; put open_clip_config.json beside them, or name the model with --model and these with --pretrained");
  }
  if (source.config_inferred && source.layout != Layout::openai) source.guess = guess_of_heads(source.config);
  if (!source.guess.empty()) source.guess += "; " + source.weights.front() + "; put open_clip_config.json beside them if that is wrong";
  return source;
}

namespace {

void load_from(Clip& model, ModelSource source) {
  check_activation(model.config, source);
  check_heads(model.config, source);
  // Without a config of their own, the weights are read as the model's.
  if (source.config_inferred) source.config = model.config;
  StateDict weights = read_own(source, WeightFiles(source.weights));
  // Whether a model has a logit bias is a matter of the loss that it is trained with.
  if (!model.config.init_logit_bias.has_value()) weights.erase("logit_bias");
  if (model.config.init_logit_bias.has_value()) weights.emplace("logit_bias", model.logit_bias.value.detach());
  for (const char* scalar_name : {"logit_scale", "logit_bias"}) {
    const auto it = weights.find(scalar_name);
    if (it != weights.end() && it->second.count() == 1) it->second = it->second.reshape({});
  }
  resize_positions(weights, model);
  load_state_dict(collect(model), weights);
}

}  // namespace

void load_weights(Clip& model, const std::string& from, const std::string& flag) { load_from(model, look_at(from, flag)); }

std::unique_ptr<Clip> load_model(const ModelSource& source) {
  auto clip = std::make_unique<Clip>(source.config, 0);
  load_from(*clip, source);
  return clip;
}
std::unique_ptr<Clip> load_model(const std::string& model) { return load_model(find_source(model)); }

void save_model(Clip& model, const std::string& folder) {
  make_folder(folder);
  const StateDict weights = to_layout(layout_pieces(Layout::open_clip, model.config), state_dict(collect(model)));
  write_safetensors((fs::path(folder) / kWeights).string(), weights, metadata_of(model.config));
  atomic_write((fs::path(folder) / kConfig).string(), to_json(model.config));
}

Converted convert_model(const std::string& model, Layout to, const std::string& folder, WeightFormat format) {
  Converted out;
  out.from = find_source(model);
  ModelConfig config = out.from.config;
  const bool torch = format == WeightFormat::torch;
  const char* weights_name = to == Layout::open_clip ? (torch ? "open_clip_pytorch_model.bin" : kWeights)
                             : !torch                ? "model.safetensors"
                             : to == Layout::openai  ? "model.pt"
                                                     : "pytorch_model.bin";
  for (const std::string& source : out.from.weights) {
    std::error_code ignored;
    if (fs::equivalent(source, fs::path(folder) / weights_name, ignored))
      throw ConfigError("the weights are read, and would be replaced; --output " + folder + "; name another folder");
  }
  const WeightFiles files(out.from.weights);
  const std::vector<LayoutPiece> pieces = layout_pieces(to, config);  // refuses first
  check_writable(to, config);
  check_alone(folder, weights_name);
  if (!out.from.guess.empty()) out.notes.push_back(out.from.guess);
  StateDict weights = to_layout(pieces, read_own(out.from, files));
  // Batch counts of PyTorch's batch norms have the same names everywhere.
  for (const auto& [name, shape] : files.shapes()) {
    if (name.size() > 20 && name.compare(name.size() - 20, 20, ".num_batches_tracked") == 0) weights.merge(files.read({name}));
  }
  const NewFolder place(folder);
  const auto write = [&](const char* name, const std::string& text) {
    out.files.push_back((fs::path(folder) / name).string());
    atomic_write(out.files.back(), text);
  };
  if (to == Layout::openai) {
    for (const auto& [name, value] : {std::pair<const char*, int>{"input_resolution", config.vision.image_size},
                                      {"context_length", config.text.context_length},
                                      {"vocab_size", config.text.vocab_size}}) {
      weights[name] = full({}, value, DType::i64);
    }
    for (const std::string& note : notes_for_openai(config)) out.notes.push_back(note);
  }
  // First, so that a folder whose weights found no room does not look like a model.
  const std::string weights_path = (fs::path(folder) / weights_name).string();
  if (torch) {
    write_torch(weights_path, weights);
  } else {
    write_safetensors(weights_path, weights, metadata_of(config));
  }
  TokenizerFiles tokenizer = read_tokenizer_files(model);
  // CLIP's own needs no files here; transformers would take an empty vocabulary instead, and say nothing.
  if (tokenizer.empty() && to == Layout::hugging_face && config.text.hf_tokenizer_name.empty()) {
    tokenizer = clip_tokenizer_files(config.text.vocab_size, config.text.context_length);
  }
  for (const auto& [name, bytes] : tokenizer) write(name.c_str(), bytes);
  if (to == Layout::hugging_face) {
    write(kHuggingFaceConfig, hugging_face_config(config));
    write("preprocessor_config.json", hugging_face_preprocess(config));
  } else if (to == Layout::openai) {
    auto json = nlohmann::ordered_json::parse(to_json(config));
    json[kActivationKey] = activation_key_of(config);
    write(kConfig, json.dump(2) + "\n");
  } else {
    write(kConfig, to_json(config));
  }
  if (to == Layout::open_clip && config.vision.is_siglip() &&
      nlohmann::json::parse(to_json(config)).at("model_cfg").at("vision_cfg").contains("act_kwargs")) {
    out.notes.push_back("open_clip computes the activation that timm gives this trunk by its name, whatever act_kwargs says");
  }
  out.files.push_back(weights_path);
  return out;
}

}  // namespace twinlens
