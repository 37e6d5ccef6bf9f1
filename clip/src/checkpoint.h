#pragma once
// LOGS/NAME/checkpoints/: step_N/ holds everything that exact resume needs, `latest` names the newest. A checkpoint is written into a
// temporary folder, synced, and renamed; checksums.json holds size and CRC-32C of each of its files but those of a tokenizer, which lie
// there because a checkpoint is a model, too. A damaged one is passed over in favour of the one before.

#include <condition_variable>
#include <cstdint>
#include <exception>
#include <filesystem>
#include <mutex>
#include <string>
#include <thread>
#include <vector>

#include "twinlens/clip/model.h"
#include "twinlens/clip/tokenizer_files.h"
#include "twinlens/nn/optimizer.h"

namespace twinlens {

// Where training stands, beside the tensors.
struct TrainState {
  std::int64_t step = 0;     // optimizer steps done
  std::int64_t samples = 0;  // pairs seen
  std::int64_t epoch = 0;    // epochs done
  std::int64_t batch = 0;    // batches done in the epoch under way
  std::uint64_t seed = 0;
  std::string instruction_set;                         // the plan: same bits only with the same
  std::string data_fingerprint;                        // of the training data
  std::string settings;                                // JSON of what must not change between runs
  std::int64_t max_chunk = 0;                          // pairs encoded at once: chosen by free memory, and part of the plan
  bool planned = false;                                // max_chunk has been chosen
  std::int64_t last_update = 0;                        // step of the last update that was made
  std::int64_t rolled_back_at = -1, bad_in_a_row = 0;  // of the guard: steps
  bool evaluation_due = false;                         // saved before the evaluation of this step was made
  std::int64_t best_step = -1;                         // of --save-best; -1: none yet
  double best_value = 0.0;
  std::string best_metric;                      // Training::best_metric()
  LossScale scaler;                             // --precision amp
  std::int64_t left_out = 0;                    // steps whose update the moments do not hold (StepBlock)
  std::int64_t steps_left_out = 0, spikes = 0;  // by the guard, of the whole run
};

// All that a checkpoint holds: a copy on the host, which uses its memory again when it is taken again, or the tensors themselves.
struct CheckpointSnapshot {
  TrainState state;
  StateDict model, optimizer;
};
void take_snapshot(CheckpointSnapshot& snapshot, const TrainState& state, Clip& model, const FlatParameters& parameters, const Ema* ema);

// Writes checkpoints/step_N, points `latest` at it and deletes all but the newest `keep_last`, the best, and, while steps are left out, the
// one that the guard would go back to. Later ones are moved as by move_abandoned().
void write_checkpoint(const std::filesystem::path& checkpoints, const CheckpointSnapshot& snapshot, std::int64_t keep_last,
                      const TokenizerFiles& tokenizer);

// Writes checkpoints while training goes on. Used from one thread.
class CheckpointWriter {
 public:
  // With `background` off, save() returns when the checkpoint is on the disk. The files of the model's tokenizer go into each of them.
  CheckpointWriter(std::filesystem::path checkpoints, std::int64_t keep_last, bool background, TokenizerFiles tokenizer = {});
  ~CheckpointWriter();  // finishes what is being written
  CheckpointWriter(const CheckpointWriter&) = delete;
  CheckpointWriter& operator=(const CheckpointWriter&) = delete;

  // Allocates the copy, so that it counts as resident before memory is planned.
  void reserve(Clip& model, const FlatParameters& parameters, const Ema* ema) { take_snapshot(snapshot_, {}, model, parameters, ema); }
  // Copies everything and returns; a thread writes the copy. A checkpoint that is still being written is waited for first.
  void save(const TrainState& state, Clip& model, const FlatParameters& parameters, const Ema* ema);
  // Throws what the writing of a checkpoint threw (disk full, ...), once.
  void poll();
  // Until nothing is being written; then as poll().
  void wait();
  // Step of the newest checkpoint that is on the disk, once the one being written is; -1: none.
  std::int64_t written() const;
  void set_written(std::int64_t step);  // by an earlier part of the run

 private:
  void work();

  std::filesystem::path checkpoints_;
  std::int64_t keep_last_;
  TokenizerFiles tokenizer_;
  CheckpointSnapshot snapshot_;  // the thread's while busy_
  mutable std::mutex mutex_;
  mutable std::condition_variable changed_;
  std::exception_ptr error_;
  std::int64_t written_ = -1;
  bool busy_ = false, stop_ = false;
  std::thread thread_;  // absent without background
};

// Where training stood. Throws FileError when a file of the checkpoint is missing or damaged.
TrainState check_checkpoint(const std::filesystem::path& checkpoint);
// Restores the tensors of a checkpoint that has been checked. Throws ConfigError when they are another model's.
void load_tensors(const std::filesystem::path& checkpoint, Clip& model, FlatParameters& parameters, Ema* ema);

// The file beside a run's checkpoints that holds the newest one's name.
inline constexpr const char* kLatest = "latest";

// What lies ahead of a run that goes on from `step` is of a branch that it has left: it moves to checkpoints/abandoned, and `latest` names
// the newest of the others. Whether there was any.
bool move_abandoned(const std::filesystem::path& checkpoints, std::int64_t step);

// Checkpoint folders of a run, newest first.
std::vector<std::filesystem::path> list_checkpoints(const std::filesystem::path& checkpoints);
// Of them the newest from before `step`, which is where a run goes back to that its update of `step` spoiled; empty when there is none.
std::filesystem::path newest_before(const std::vector<std::filesystem::path>& newest_first, std::int64_t step);

}  // namespace twinlens
