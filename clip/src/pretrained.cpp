#include "twinlens/clip/pretrained.h"

#include <filesystem>

#include "twinlens/core/file.h"
#include "twinlens/core/safetensors.h"
#include "twinlens/kernels/error.h"

namespace twinlens {
namespace {

namespace fs = std::filesystem;
constexpr const char* kWeights = "open_clip_model.safetensors";
constexpr const char* kConfig = "open_clip_config.json";

}  // namespace

std::string weights_file(const std::string& model) {
  std::error_code ignored;
  const fs::path path = model;
  if (fs::is_directory(path, ignored) && fs::is_regular_file(path / kWeights, ignored)) return (path / kWeights).string();
  if (path.extension() == ".safetensors" && fs::is_regular_file(path, ignored)) return path.string();
  return {};
}

void load_weights(Clip& model, const std::string& from) {
  const std::string file = weights_file(from);
  if (file.empty()) {
    throw ConfigError("model '" + from + "' has no weights; --model; give a model folder with " + kWeights + ", such as LOGS/NAME/model");
  }
  StateDict weights = read_safetensors(file);
  // PyTorch's batch norms count their batches and save the count; nothing is computed from it.
  std::erase_if(weights, [](const auto& entry) { return entry.first.ends_with(".num_batches_tracked"); });
  load_state_dict(collect(model), weights);
}

std::unique_ptr<Clip> load_model(const std::string& model) {
  const std::string file = weights_file(model);
  const bool is_file = !file.empty() && file == model;
  const ModelConfig config = find_model_config(is_file ? fs::path(model).parent_path().string() : model);
  auto clip = std::make_unique<Clip>(config, 0);
  load_weights(*clip, model);
  return clip;
}

void save_model(Clip& model, const std::string& folder) {
  std::error_code error;
  fs::create_directories(folder, error);
  if (error) throw FileError("model folder cannot be made: " + error.message() + "; " + folder + "; check permissions and free space");
  write_safetensors((fs::path(folder) / kWeights).string(), state_dict(collect(model)));
  atomic_write((fs::path(folder) / kConfig).string(), to_json(model.config));
}

}  // namespace twinlens
