#pragma once
// What the flags of `twinlens train` mean for the parts of a run.

#include <nlohmann/json.hpp>

#include "twinlens/clip/config.h"
#include "twinlens/clip/layer_groups.h"
#include "twinlens/clip/loader.h"
#include "twinlens/clip/train_step.h"
#include "twinlens/clip/trainer.h"
#include "twinlens/nn/optimizer.h"
#include "twinlens/nn/schedule.h"

namespace twinlens {

// Throws ConfigError where a number makes no sense or --save-best is no metric: for those who set TrainOptions themselves, and for what
// concerns several numbers; the program refuses the rest with its command line.
void check_limits(const TrainOptions& options);
// The same of --save-best, once the validation data is known.
void check_save_best(const TrainOptions& options, const Dataset& validation);

// The --force-* flags.
void force_config(const TrainOptions& options, ModelConfig& config);
LockOptions lock_options(const TrainOptions& options);
std::string run_name(const TrainOptions& options);
DatasetOptions dataset_options(const TrainOptions& options);          // of the training data; throws ConfigError
DatasetOptions validation_data_options(const TrainOptions& options);  // one caption a picture, no weights
LoaderOptions loader_options(const TrainOptions& options, const ModelConfig& config);
StepOptions step_options(const TrainOptions& options);  // throws ConfigError where flags exclude each other
AdamWOptions adamw_options(const TrainOptions& options, const ModelConfig& config);
Schedule schedule_of(const TrainOptions& options, std::int64_t steps_per_epoch);

// What must be as in the first run for a resumed one to continue it exactly.
nlohmann::ordered_json resume_settings(const TrainOptions& options, const ModelConfig& config);

}  // namespace twinlens
