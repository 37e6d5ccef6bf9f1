#pragma once
// The options of a run as a file has them.

#include <nlohmann/json.hpp>

#include "twinlens/clip/trainer.h"

namespace twinlens {

inline constexpr const char* kParams = "params.json";  // in the folder of a run

// Throws UsageError for `--resume latest` without a name.
void check_run_is_named(const TrainOptions& options);

// What params.json holds: every option under describe()'s name, resolved, numbers as numbers.
nlohmann::ordered_json params_of(const TrainOptions& options);

}  // namespace twinlens
