#include "clip/src/resume.h"

#include <algorithm>
#include <cstdio>
#include <fmt/format.h>
#include <map>
#include <nlohmann/json.hpp>

#include "twinlens/core/file.h"
#include "twinlens/kernels/error.h"

namespace twinlens {
namespace {

namespace fs = std::filesystem;
using Json = nlohmann::ordered_json;

// The first place in which two settings differ, and what stands there: "model/vision_cfg/layers' was 2 and is now 3".
std::string difference(const std::string& key, const Json& then, const Json& now) {
  const std::string path = Json::diff(then, now)[0]["path"];
  const auto text = [&](const Json& setting) {
    const Json::json_pointer place(path);
    const Json found = setting.contains(place) ? setting[place] : Json();
    return found.is_null() ? std::string("unset") : found.dump();
  };
  return "'" + key + path + "' was " + text(then) + " and is now " + text(now);
}

void check_settings(const TrainState& saved, const TrainState& fresh, const fs::path& folder, const fs::path& checkpoint) {
  const Json then = Json::parse(saved.settings), now = Json::parse(fresh.settings);
  std::vector<std::string> keys;
  for (const Json* settings : {&now, &then}) {
    for (const auto& entry : settings->items()) keys.push_back(entry.key());
  }
  // The model last: other settings change it, and are what one knows.
  std::stable_partition(keys.begin(), keys.end(), [](const std::string& key) { return key != "model"; });
  for (const std::string& key : keys) {
    if (key == "epochs" || (key == "warmup" && now.at(key) < 0)) continue;
    const Json before = then.value(key, Json()), after = now.value(key, Json());
    if (before != after)
      throw ConfigError("resume: " + difference(key, before, after) + "; " + checkpoint.string() + "; give the flags of the first run");
  }
  if (saved.data_fingerprint != fresh.data_fingerprint) {
    throw ConfigError("resume: the training data has changed; --train-data; restore it, or start a new run with --pretrained " +
                      (folder / "model").string());
  }
  const std::int64_t begun = saved.epoch + (saved.batch > 0 ? 1 : 0), epochs = now.at("epochs");
  // (Where equal captions are kept apart, epochs differ in length, and a run of so many steps may end in the epoch behind its last.)
  if (epochs != then.at("epochs") && epochs < begun) {
    throw ConfigError(
        fmt::format("resume: epoch {} is begun and --epochs is {}; {}; give {} or more", begun, epochs, checkpoint.string(), begun));
  }
}

// Other tokens for the same captions would train the rows of words that are not theirs, and nothing would say so.
void check_tokenizer(const TokenizerFiles& files, const fs::path& checkpoint) {
  const TokenizerFiles saved = read_tokenizer_files(checkpoint.string());
  const std::map<std::string, std::string> then(saved.begin(), saved.end()), now(files.begin(), files.end());
  const auto refuse = [&](const std::string& what) {
    throw ConfigError("resume: the tokenizer has changed: " + what + "; " + checkpoint.string() +
                      "; give the --model and --pretrained of the first run, with the tokenizer's files that the checkpoint holds");
  };
  for (const auto& [name, bytes] : saved) {
    const auto found = now.find(name);
    if (found == now.end()) refuse(name + " is not there any more");
    if (found->second != bytes) refuse(name + " is another");
  }
  for (const auto& file : files) {
    if (then.count(file.first) == 0) refuse(file.first + " was not there");
  }
}

// The checkpoints that `resume` names, the one to begin with first.
std::vector<fs::path> candidates_of(const fs::path& folder, const std::string& resume) {
  if (resume == "latest") return list_checkpoints(folder / "checkpoints");
  const auto refuse = [&](const std::string& what) {
    throw FileError("resume: " + what + "; " + resume + "; give --resume latest with the run's --name, or LOGS/NAME/checkpoints/step_N");
  };
  fs::path path = fs::path(resume).lexically_normal();
  if (!path.has_filename()) path = path.parent_path();  // (a slash at the end)
  std::error_code unreadable;
  if (!fs::exists(path, unreadable)) refuse("there is no such checkpoint");
  if (!fs::is_directory(path, unreadable)) {
    if (path.filename() != kLatest) refuse("a file is no checkpoint");
    std::string name = read_file(path.string());  // (of a folder beside it)
    name.erase(name.find_last_not_of(" \r\n") + 1);
    if (name.empty() || !fs::is_directory(path.parent_path() / name, unreadable)) refuse("the checkpoint '" + name + "' is not there");
    return {path.parent_path() / name};
  }
  for (const char* file : {"state.json", "checksums.json", "model.safetensors"}) {
    if (fs::exists(path / file, unreadable)) return {path};
  }
  for (const fs::path& checkpoints : {path / "checkpoints", path}) {
    if (std::vector<fs::path> all = list_checkpoints(checkpoints); !all.empty()) return all;
  }
  refuse("the folder holds no checkpoint");
  return {};
}

}  // namespace

fs::path run_of(const fs::path& folder, const std::string& resume) {
  return resume == "latest" ? folder : fs::absolute(candidates_of(folder, resume).front()).parent_path().parent_path();
}

fs::path own_model_of(const fs::path& folder, const std::string& resume) {
  std::error_code ignored;
  if (fs::path model = run_of(folder, resume) / "model"; fs::exists(model, ignored)) return model;
  for (const fs::path& candidate : candidates_of(folder, resume)) {
    try {
      check_checkpoint(candidate);
      return candidate;
    } catch (const FileError&) {  // (resume_run says what is wrong with it)
    }
  }
  return {};
}

TrainState resume_run(const fs::path& folder, const std::string& resume, const TrainState& fresh, const TokenizerFiles& tokenizer,
                      Clip& model, FlatParameters& parameters, Ema* ema) {
  const std::vector<fs::path> candidates = candidates_of(folder, resume);
  std::string problem;
  for (const fs::path& candidate : candidates) {
    TrainState state;
    try {
      state = check_checkpoint(candidate);
    } catch (const FileError& e) {
      if (candidate != candidates.back()) std::fprintf(stderr, "warning: %s; trying the checkpoint before\n", e.what());
      problem = e.what();
      continue;
    }
    check_settings(state, fresh, folder, candidate);  // before the tensors, which would not fit another model
    check_tokenizer(tokenizer, candidate);
    load_tensors(candidate, model, parameters, ema);
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
