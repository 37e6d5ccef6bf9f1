#pragma once
// A run of training that takes a moment.

#include <string>
#include <vector>

#include "tests/support/temporary_folder.h"
#include "tests/support/toy_data.h"

#include "twinlens/clip/trainer.h"

namespace twinlens::test {

// Writes pairs and a model's configuration into `folder`, and returns options that train it on them into folder/logs/run.
inline TrainOptions toy_training(const TemporaryFolder& folder, const std::vector<ToyPair>& pairs,
                                 const std::string& config = toy_vit_json()) {
  write_toy_folder(folder / "data", pairs);
  write_text(folder / "model.json", config);
  TrainOptions o;
  o.train_data = folder / "data";
  o.model = folder / "model.json";
  o.logs = folder / "logs";
  o.name = "run";
  o.workers = 1;
  return o;
}

}  // namespace twinlens::test
