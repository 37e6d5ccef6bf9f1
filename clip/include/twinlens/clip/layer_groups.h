#pragma once
// The depth of a parameter in its tower, for freezing all but the last groups and for learning rates that fall with depth, as open_clip has
// them (transformer.py lock, and of its main branch optim.py layer_decay_param_groups). A tower of L blocks has L + 2 groups, from input to
// output: embeddings (with ln_pre); each block, the last with the final norm; the head (projection and attention pooling, which open_clip
// keeps frozen in a ViT). A ResNet has six (modified_resnet.py layer_groups): the stem, four stages, attention pooling.

#include <functional>
#include <string>

#include "twinlens/clip/config.h"

namespace twinlens {

struct LayerGroup {
  enum class Tower : std::uint8_t { image, text, neither };  // logit scale and bias belong to neither
  Tower tower = Tower::neither;
  int group = 0;   // from the input
  int groups = 1;  // of the tower
};
LayerGroup layer_group(const ModelConfig& config, const std::string& parameter);

struct LockOptions {
  bool image = false, text = false;
  int image_unlocked_groups = 0, text_unlocked_layers = 0;  // the last groups, which stay trainable
};
// Which parameters must not change: those of locked groups, and fixed positions.
std::function<bool(const std::string&)> frozen_by(const ModelConfig& config, const LockOptions& options);

// Factor of the learning rate: decay^(groups - 1 - group) in each tower; a decay of 1 changes nothing.
std::function<float(const std::string&)> layer_decay(const ModelConfig& config, double image_decay, double text_decay);

}  // namespace twinlens
