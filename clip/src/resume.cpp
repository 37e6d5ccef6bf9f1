#include "clip/src/resume.h"

#include <cstdio>
#include <nlohmann/json.hpp>

#include "twinlens/kernels/error.h"

namespace twinlens {
namespace {

namespace fs = std::filesystem;
using Json = nlohmann::ordered_json;

void check_settings(const TrainState& saved, const TrainState& fresh, const fs::path& folder, const fs::path& checkpoint) {
  const Json then = Json::parse(saved.settings), now = Json::parse(fresh.settings);
  const auto text = [](const Json& settings, const std::string& key) { return settings.contains(key) ? settings[key].dump() : "unset"; };
  for (const Json* settings : {&now, &then}) {
    for (const auto& entry : settings->items()) {
      const std::string before = text(then, entry.key()), after = text(now, entry.key());
      if (before != after) {
        throw ConfigError("resume: '" + entry.key() + "' was " + before + " and is now " + after + "; " + checkpoint.string() +
                          "; give the flags of the first run");
      }
    }
  }
  if (saved.data_fingerprint != fresh.data_fingerprint) {
    throw ConfigError("resume: the training data has changed; --train-data; restore it, or start a new run with --pretrained " +
                      (folder / "model").string());
  }
}

}  // namespace

TrainState resume_run(const fs::path& folder, const std::string& resume, const TrainState& fresh, Clip& model, FlatParameters& parameters,
                      Ema* ema) {
  std::vector<fs::path> candidates{resume};
  if (resume == "latest") {
    candidates = list_checkpoints(folder / "checkpoints");
    if (candidates.empty()) throw FileError("resume: no checkpoint; " + (folder / "checkpoints").string() + "; start without --resume");
  }
  std::string problem;
  for (const fs::path& candidate : candidates) {
    TrainState state;
    try {
      state = load_checkpoint(candidate, model, parameters, ema);
    } catch (const FileError& e) {
      std::fprintf(stderr, "warning: %s; trying the checkpoint before\n", e.what());
      problem = e.what();
      continue;
    }
    check_settings(state, fresh, folder, candidate);
    if (state.instruction_set != fresh.instruction_set) {
      std::fprintf(stderr, "warning: the run used %s and goes on with %s: results continue, but not bit for bit\n",
                   state.instruction_set.c_str(), fresh.instruction_set.c_str());
      state.instruction_set = fresh.instruction_set;
    }
    return state;
  }
  throw FileError("resume: no usable checkpoint; " + problem + "; start a new run");
}

}  // namespace twinlens
