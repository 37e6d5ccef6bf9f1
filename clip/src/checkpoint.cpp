#include "clip/src/checkpoint.h"

#include <algorithm>
#include <fmt/format.h>
#include <nlohmann/json.hpp>
#include <utility>

#include "clip/src/json_text.h"

#include "twinlens/core/autograd.h"
#include "twinlens/core/crc32c.h"
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
constexpr const char* kChecksums = "checksums.json";
constexpr const char* kPrefix = "step_";
constexpr const char* kAbandoned = "abandoned";

std::int64_t step_of(const fs::path& folder) {
  const std::string name = folder.filename().string();
  constexpr std::size_t kMostDigits = 18;
  if (name.rfind(kPrefix, 0) != 0 || name.find_first_not_of("0123456789", 5) != std::string::npos) return -1;
  if (name.size() == 5 || name.size() > 5 + kMostDigits) return -1;
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

// Copies on the host, into the tensors that are there from the last time.
void copy_tensors(const StateDict& from, StateDict& to) {
  const NoGrad guard;
  for (const auto& [name, tensor] : from) {
    Tensor& copy = to[name];
    if (!copy.defined() || copy.shape() != tensor.shape() || copy.dtype() != tensor.dtype()) copy = empty(tensor.shape(), tensor.dtype());
    copy.copy_(tensor.device().is_cuda() ? tensor.to(kCpu) : tensor);
  }
}

std::string state_text(const TrainState& state) {
  const Json json{{"step", state.step},
                  {"samples", state.samples},
                  {"epoch", state.epoch},
                  {"batch", state.batch},
                  {"seed", state.seed},
                  {"instruction_set", state.instruction_set},
                  {"max_chunk", state.max_chunk},
                  {"evaluation_due", state.evaluation_due},
                  {"last_update", state.last_update},
                  {"rolled_back_at", state.rolled_back_at},
                  {"bad_in_a_row", state.bad_in_a_row},
                  {"best_step", state.best_step},
                  {"best_value", state.best_value},
                  {"best_metric", state.best_metric},
                  {"left_out", state.left_out},
                  {"steps_left_out", state.steps_left_out},
                  {"spikes", state.spikes},
                  {"loss_scale", state.scaler.scale},
                  {"loss_scale_good_steps", state.scaler.good_steps},
                  {"data", state.data_fingerprint},
                  {"settings", Json::parse(state.settings.empty() ? "{}" : state.settings)}};
  return json_text(json, 2) + "\n";
}

Json sums_of(const fs::path& folder) {
  Json sums;
  for (const char* name : {kModel, kOptimizer, kState}) {
    const std::string path = (folder / name).string();
    sums[name] = {{"bytes", InputFile(path).size()}, {"crc32c", fmt::format("{:08x}", crc32c_of_file(path))}};
  }
  return sums;
}

// Throws FileError when a file of the checkpoint is not the one that was written.
void check_sums(const fs::path& folder) {
  const Json sums = Json::parse(read_file((folder / kChecksums).string()), nullptr, false);
  if (!sums.is_object()) throw FileError("checkpoint: checksums.json is damaged; " + folder.string() + "; use an older checkpoint");
  const Json all = sums_of(folder);
  for (const auto& [name, found] : all.items()) {
    if (sums.contains(name) && sums[name] == found) continue;
    throw FileError("checkpoint: " + name + " is damaged (its size or CRC-32C is not that in checksums.json); " + folder.string() +
                    "; use an older checkpoint");
  }
}

}  // namespace

std::vector<fs::path> list_checkpoints(const fs::path& checkpoints) {
  std::vector<fs::path> found;
  std::error_code ignored;
  for (const auto& entry : fs::directory_iterator(checkpoints, ignored)) {
    std::error_code unreadable;
    if (entry.is_directory(unreadable) && step_of(entry.path()) >= 0) found.push_back(entry.path());
  }
  std::sort(found.begin(), found.end(), [](const fs::path& a, const fs::path& b) { return step_of(a) > step_of(b); });
  return found;
}

fs::path newest_before(const std::vector<fs::path>& newest_first, std::int64_t step) {
  const auto it = std::find_if(newest_first.begin(), newest_first.end(), [&](const fs::path& folder) { return step_of(folder) < step; });
  return it == newest_first.end() ? fs::path() : *it;
}

bool move_abandoned(const fs::path& checkpoints, std::int64_t step) {
  std::error_code ignored;
  const std::vector<fs::path> all = list_checkpoints(checkpoints);
  if (all.empty() || step_of(all.front()) <= step) return false;
  for (const fs::path& folder : all) {
    if (step_of(folder) <= step) {
      atomic_write((checkpoints / kLatest).string(), folder.filename().string() + "\n");
      break;
    }
    const fs::path to = checkpoints / kAbandoned / folder.filename();
    fs::create_directories(to.parent_path(), ignored);
    fs::remove_all(to, ignored);
    fs::rename(folder, to, ignored);
  }
  return true;
}

void take_snapshot(CheckpointSnapshot& snapshot, const TrainState& state, Clip& model, const FlatParameters& parameters, const Ema* ema) {
  snapshot.state = state;
  copy_tensors(state_dict(collect(model)), snapshot.model);
  copy_tensors(optimizer_tensors(parameters, ema), snapshot.optimizer);
}

void write_checkpoint(const fs::path& checkpoints, const CheckpointSnapshot& snapshot, std::int64_t keep_last,
                      const TokenizerFiles& tokenizer) {
  const TrainState& state = snapshot.state;
  const fs::path final_folder = checkpoints / (kPrefix + std::to_string(state.step));
  const fs::path temporary = checkpoints / ("tmp_" + std::to_string(state.step));
  std::error_code ignored;
  remove_leftovers(checkpoints);
  make_folder(temporary);
  try {
    write_safetensors((temporary / kModel).string(), snapshot.model);
    write_safetensors((temporary / kOptimizer).string(), snapshot.optimizer);
    write_tokenizer_files(tokenizer, temporary.string());
    atomic_write((temporary / kState).string(), state_text(state));
    atomic_write((temporary / kChecksums).string(), sums_of(temporary).dump(2) + "\n");
    replace_folder(temporary.string(), final_folder.string());
  } catch (...) {
    fs::remove_all(temporary, ignored);
    throw;
  }
  atomic_write((checkpoints / kLatest).string(), final_folder.filename().string() + "\n");
  move_abandoned(checkpoints, state.step);
  const std::vector<fs::path> all = list_checkpoints(checkpoints);
  // While steps are left out, those saved meanwhile must not push out the one that the guard would go back to.
  const fs::path way_back = state.bad_in_a_row > 0 ? newest_before(all, state.last_update) : fs::path();
  for (std::size_t i = static_cast<std::size_t>(std::max<std::int64_t>(1, keep_last)); i < all.size(); ++i) {
    if (step_of(all[i]) != state.best_step && all[i] != way_back) fs::remove_all(all[i], ignored);
  }
}

CheckpointWriter::CheckpointWriter(fs::path checkpoints, std::int64_t keep_last, bool background, TokenizerFiles tokenizer)
    : checkpoints_(std::move(checkpoints)), keep_last_(keep_last), tokenizer_(std::move(tokenizer)) {
  if (background) thread_ = std::thread([this] { work(); });
}

CheckpointWriter::~CheckpointWriter() {
  if (!thread_.joinable()) return;
  {
    const std::lock_guard lock(mutex_);
    stop_ = true;
  }
  changed_.notify_all();
  thread_.join();
}

void CheckpointWriter::work() {
  std::unique_lock lock(mutex_);
  while (true) {
    changed_.wait(lock, [&] { return busy_ || stop_; });
    if (!busy_) return;
    lock.unlock();
    std::exception_ptr error;
    try {
      write_checkpoint(checkpoints_, snapshot_, keep_last_, tokenizer_);
    } catch (...) {
      error = std::current_exception();
    }
    lock.lock();
    busy_ = false;
    error_ = error;
    if (error == nullptr) written_ = snapshot_.state.step;
    changed_.notify_all();
  }
}

void CheckpointWriter::save(const TrainState& state, Clip& model, const FlatParameters& parameters, const Ema* ema) {
  wait();
  if (!thread_.joinable()) {
    // Nothing changes meanwhile, so the tensors themselves are written.
    write_checkpoint(checkpoints_, {state, state_dict(collect(model)), optimizer_tensors(parameters, ema)}, keep_last_, tokenizer_);
    written_ = state.step;
    return;
  }
  take_snapshot(snapshot_, state, model, parameters, ema);
  {
    const std::lock_guard lock(mutex_);
    busy_ = true;
  }
  changed_.notify_all();
}

void CheckpointWriter::poll() {
  const std::lock_guard lock(mutex_);
  if (error_ != nullptr) std::rethrow_exception(std::exchange(error_, nullptr));
}

void CheckpointWriter::wait() {
  {
    std::unique_lock lock(mutex_);
    changed_.wait(lock, [&] { return !busy_; });
  }
  poll();
}

std::int64_t CheckpointWriter::written() const {
  std::unique_lock lock(mutex_);
  changed_.wait(lock, [&] { return !busy_; });
  return written_;
}

void CheckpointWriter::set_written(std::int64_t step) {
  const std::lock_guard lock(mutex_);
  written_ = step;
}

TrainState check_checkpoint(const fs::path& checkpoint) {
  const fs::path state_file = checkpoint / kState;
  check_sums(checkpoint);
  const Json json = Json::parse(read_file(state_file.string()), nullptr, false);
  if (!json.is_object()) throw FileError("checkpoint: state.json is damaged; " + state_file.string() + "; use an older checkpoint");
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
    state.evaluation_due = json.value("evaluation_due", false);
    state.best_step = json.value("best_step", std::int64_t{-1});
    if (json.contains("best_value") && json["best_value"].is_number()) state.best_value = json["best_value"];
    state.best_metric = json.value("best_metric", std::string());
    state.last_update = json.value("last_update", state.step);
    state.rolled_back_at = json.value("rolled_back_at", std::int64_t{-1});
    state.bad_in_a_row = json.value("bad_in_a_row", std::int64_t{0});
    state.left_out = json.value("left_out", std::int64_t{0});
    state.steps_left_out = json.value("steps_left_out", std::int64_t{0});
    state.spikes = json.value("spikes", std::int64_t{0});
    state.scaler.scale = json.value("loss_scale", LossScale::kFirst);
    state.scaler.good_steps = json.value("loss_scale_good_steps", std::int32_t{0});
    state.data_fingerprint = json.at("data");
    state.settings = json.at("settings").dump();
  } catch (const Json::exception& e) {
    throw FileError("checkpoint: state.json is incomplete: " + std::string(e.what()) + "; " + state_file.string() +
                    "; use an older checkpoint");
  }
  return state;
}

void load_tensors(const fs::path& checkpoint, Clip& model, FlatParameters& parameters, Ema* ema) {
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
}

}  // namespace twinlens
