#pragma once
// LOGS/NAME/checkpoints/: step_N/ holds everything that exact resume needs, `latest` names the newest. A checkpoint is written into a
// temporary folder, synced, and renamed; a damaged one is passed over in favour of the one before.

#include <cstdint>
#include <filesystem>
#include <string>
#include <vector>

#include "twinlens/clip/model.h"
#include "twinlens/nn/optimizer.h"

namespace twinlens {

// Where training stands, beside the tensors.
struct TrainState {
  std::int64_t step = 0;     // optimizer steps done
  std::int64_t samples = 0;  // pairs seen
  std::int64_t epoch = 0;    // epochs done
  std::int64_t batch = 0;    // batches done in the epoch under way
  std::uint64_t seed = 0;
  std::string instruction_set;   // the plan: same bits only with the same
  std::string data_fingerprint;  // of the training data
  std::string settings;          // JSON of what must not change between runs
  std::int64_t max_chunk = 0;    // pairs encoded at once: chosen by free memory, and part of the plan
  bool planned = false;          // max_chunk has been chosen
};

// Writes checkpoints/step_N, points `latest` at it and deletes all but the newest `keep_last`.
void save_checkpoint(const std::filesystem::path& checkpoints, const TrainState& state, Clip& model, const FlatParameters& parameters,
                     const Ema* ema, std::int64_t keep_last);

// Restores everything. Throws FileError when a file is missing or damaged, ConfigError when it is of another model.
TrainState load_checkpoint(const std::filesystem::path& checkpoint, Clip& model, FlatParameters& parameters, Ema* ema);

// Checkpoint folders of a run, newest first.
std::vector<std::filesystem::path> list_checkpoints(const std::filesystem::path& checkpoints);

}  // namespace twinlens
