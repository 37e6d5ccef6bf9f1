#pragma once
// Parameter counts and forward FLOPs in closed form, in open_clip's convention (docs/model_profile.csv): 2 FLOP per multiply-add, dense
// text rows, full attention.

#include <cstdint>

#include "twinlens/clip/config.h"

namespace twinlens {

struct ModelCost {
  std::int64_t image_parameters = 0, text_parameters = 0;  // the logit scale counts with neither
  double image_gflops = 0.0, text_gflops = 0.0;            // one picture, one caption
  std::int64_t parameters() const { return image_parameters + text_parameters + 1; }
};

ModelCost model_cost(const ModelConfig& config);

}  // namespace twinlens
