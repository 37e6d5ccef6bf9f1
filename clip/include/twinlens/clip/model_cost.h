#pragma once
// Parameter counts and forward FLOPs in closed form, in open_clip's convention (docs/model_profile.csv): 2 FLOP per multiply-add, dense
// text rows, full attention.

#include <cstdint>

#include "twinlens/clip/config.h"

namespace twinlens {

struct ModelCost {
  std::int64_t image_parameters = 0, text_parameters = 0;  // logit scale and bias count with neither
  double image_gflops = 0.0, text_gflops = 0.0;            // one picture, one caption
  std::int64_t scalars = 1;                                // logit scale, and bias if there is one
  std::int64_t parameters() const { return image_parameters + text_parameters + scalars; }
};

ModelCost model_cost(const ModelConfig& config);

}  // namespace twinlens
