#include "clip/src/checkpoint.h"

#include <algorithm>
#include <fstream>
#include <nlohmann/json.hpp>
#include <sstream>

#include "twinlens/core/autograd.h"
#include "twinlens/core/file.h"
#include "twinlens/core/safetensors.h"
#include "twinlens/kernels/error.h"

namespace twinlens {
namespace {

namespace fs = std::filesystem;
using Json = nlohmann::ordered_json;

constexpr const char* kModel = "model.safetensors";
constexpr const char* kOptimizer = "optimizer.safetensors";
constexpr const char* kState = "state.json";
constexpr const char* kPrefix = "step_";

std::int64_t step_of(const fs::path& folder) {
  const std::string name = folder.filename().string();
  if (name.rfind(kPrefix, 0) != 0 || name.find_first_not_of("0123456789", 5) != std::string::npos || name.size() == 5) return -1;
  return std::stoll(name.substr(5));
}

StateDict optimizer_tensors(const FlatParameters& p, const Ema* ema) {
  StateDict out{{"moment1", p.moment1}, {"moment2", p.moment2}};
  if (ema != nullptr) out.emplace("ema", ema->average);
  return out;
}

// What a process that was killed while saving left behind.
void remove_leftovers(const fs::path& checkpoints) {
  std::error_code ignored;
  std::vector<fs::path> found;
  for (const auto& entry : fs::directory_iterator(checkpoints, ignored)) {
    const std::string name = entry.path().filename().string();
    if (name.rfind("tmp_", 0) == 0 || name.rfind("latest.tmp-", 0) == 0) found.push_back(entry.path());
  }
  for (const fs::path& path : found) fs::remove_all(path, ignored);
}

void make_folder(const fs::path& folder) {
  std::error_code error;
  fs::create_directories(folder, error);
  if (error) {
    throw FileError("checkpoint: the folder cannot be made: " + error.message() + "; " + folder.string() +
                    "; check permissions and free space");
  }
}

}  // namespace

std::vector<fs::path> list_checkpoints(const fs::path& checkpoints) {
  std::vector<fs::path> found;
  std::error_code ignored;
  for (const auto& entry : fs::directory_iterator(checkpoints, ignored)) {
    if (entry.is_directory() && step_of(entry.path()) >= 0) found.push_back(entry.path());
  }
  std::sort(found.begin(), found.end(), [](const fs::path& a, const fs::path& b) { return step_of(a) > step_of(b); });
  return found;
}

void save_checkpoint(const fs::path& checkpoints, const TrainState& state, Clip& model, const FlatParameters& parameters, const Ema* ema,
                     std::int64_t keep_last) {
  const fs::path final_folder = checkpoints / (kPrefix + std::to_string(state.step));
  const fs::path temporary = checkpoints / ("tmp_" + std::to_string(state.step));
  std::error_code ignored;
  remove_leftovers(checkpoints);
  make_folder(temporary);
  try {
    write_safetensors((temporary / kModel).string(), state_dict(collect(model)));
    write_safetensors((temporary / kOptimizer).string(), optimizer_tensors(parameters, ema));
    const Json json{{"step", state.step},
                    {"samples", state.samples},
                    {"epoch", state.epoch},
                    {"batch", state.batch},
                    {"seed", state.seed},
                    {"instruction_set", state.instruction_set},
                    {"max_chunk", state.max_chunk},
                    {"data", state.data_fingerprint},
                    {"settings", Json::parse(state.settings.empty() ? "{}" : state.settings)}};
    atomic_write((temporary / kState).string(), json.dump(2) + "\n");
    fs::remove_all(final_folder, ignored);
    rename_synced(temporary.string(), final_folder.string());
  } catch (...) {
    fs::remove_all(temporary, ignored);
    throw;
  }
  atomic_write((checkpoints / "latest").string(), final_folder.filename().string() + "\n");
  const std::vector<fs::path> all = list_checkpoints(checkpoints);
  for (std::size_t i = static_cast<std::size_t>(std::max<std::int64_t>(1, keep_last)); i < all.size(); ++i) fs::remove_all(all[i], ignored);
}

TrainState load_checkpoint(const fs::path& checkpoint, Clip& model, FlatParameters& parameters, Ema* ema) {
  const fs::path state_file = checkpoint / kState;
  std::ifstream file(state_file);
  std::stringstream text;
  text << file.rdbuf();
  const Json json = Json::parse(text.str(), nullptr, false);
  if (!file || !json.is_object())
    throw FileError("checkpoint: state.json is missing or damaged; " + state_file.string() + "; use an older checkpoint");
  TrainState state;
  try {
    state.step = json.at("step");
    state.samples = json.at("samples");
    state.epoch = json.at("epoch");
    state.batch = json.at("batch");
    state.seed = json.at("seed");
    state.instruction_set = json.at("instruction_set");
    state.max_chunk = json.value("max_chunk", std::int64_t{0});
    state.planned = json.contains("max_chunk");
    state.data_fingerprint = json.at("data");
    state.settings = json.at("settings").dump();
  } catch (const Json::exception& e) {
    throw FileError("checkpoint: state.json is incomplete: " + std::string(e.what()) + "; " + state_file.string() +
                    "; use an older checkpoint");
  }
  const StateDict weights = read_safetensors((checkpoint / kModel).string());
  const StateDict moments = read_safetensors((checkpoint / kOptimizer).string());
  load_state_dict(collect(model), weights);
  const NoGrad guard;
  for (auto [name, target] : optimizer_tensors(parameters, ema)) {
    const auto it = moments.find(name);
    if (it == moments.end())
      throw FileError("checkpoint: no tensor '" + name + "'; " + (checkpoint / kOptimizer).string() +
                      "; resume with the flags of the first run");
    target.copy_(it->second);
  }
  parameters.refresh_shadow();
  return state;
}

}  // namespace twinlens
