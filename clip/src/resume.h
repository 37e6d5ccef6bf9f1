#pragma once
// Taking a run up again.

#include "clip/src/checkpoint.h"

namespace twinlens {

// The folder of the run whose checkpoints `resume` (below) names; of "latest" it is `folder`. Throws FileError where it names none.
std::filesystem::path run_of(const std::filesystem::path& folder, const std::string& resume);
// What that run's model has its shape and tokenizer from when what it began with is gone: its own model/, or, of a run that was killed, its
// newest usable checkpoint; empty when there is neither.
std::filesystem::path own_model_of(const std::filesystem::path& folder, const std::string& resume);

// Restores model, parameters and averages from `resume` ("latest": the newest usable checkpoint of the run in `folder`; or the path of a
// checkpoint, of a run's folder, of its checkpoints/ or of the file `latest` there) and returns where it stood. `fresh` is the state of the
// run as it would start now: settings, data and the files of the tokenizer must be the same, but for the number of epochs, which may be
// any that are not over, and a warmup below 0, which is any. Throws FileError when no checkpoint can be used, ConfigError naming what
// differs.
TrainState resume_run(const std::filesystem::path& folder, const std::string& resume, const TrainState& fresh,
                      const TokenizerFiles& tokenizer, Clip& model, FlatParameters& parameters, Ema* ema);

}  // namespace twinlens
