#include "twinlens/clip/layer_groups.h"

#include <cmath>
#include <cstdlib>

namespace twinlens {
namespace {

bool starts_with(const std::string& text, const std::string& start) { return text.rfind(start, 0) == 0; }

// Of a name without its tower's prefix, in a tower of so many blocks.
int group_of(const std::string& name, int layers) {
  const std::string blocks = "transformer.resblocks.";
  if (starts_with(name, blocks)) return 1 + std::atoi(name.c_str() + blocks.size());
  if (starts_with(name, "ln_post.") || starts_with(name, "ln_final.")) return layers;
  for (const char* head : {"proj", "attn_pool.", "text_projection"}) {
    if (starts_with(name, head)) return layers + 1;
  }
  return 0;
}

// The same of a ResNet: the stem, its four stages, attention pooling.
constexpr int kResnetGroups = 6;
int resnet_group_of(const std::string& name) {
  if (starts_with(name, "attnpool.")) return kResnetGroups - 1;
  return starts_with(name, "layer") ? std::atoi(name.c_str() + 5) : 0;
}

}  // namespace

LayerGroup layer_group(const ModelConfig& config, const std::string& parameter) {
  using Tower = LayerGroup::Tower;
  if (starts_with(parameter, "logit_")) return {};
  if (!starts_with(parameter, "visual.")) return {Tower::text, group_of(parameter, config.text.layers), config.text.layers + 2};
  const std::string name = parameter.substr(7);
  if (config.vision.is_resnet()) return {Tower::image, resnet_group_of(name), kResnetGroups};
  const int layers = config.vision.layers[0];
  return {Tower::image, group_of(name, layers), layers + 2};
}

std::function<bool(const std::string&)> frozen_by(const ModelConfig& config, const LockOptions& options) {
  return [config, options](const std::string& name) {
    if (name == "visual.positional_embedding" && config.vision.pos_embed_type == "sin_cos_2d") return true;
    const LayerGroup g = layer_group(config, name);
    const auto locked = [&](bool tower_is_locked, int unlocked) { return tower_is_locked && g.group < g.groups - unlocked; };
    switch (g.tower) {
      case LayerGroup::Tower::image: return locked(options.image, options.image_unlocked_groups);
      case LayerGroup::Tower::text: return locked(options.text, options.text_unlocked_layers);
      case LayerGroup::Tower::neither: return false;
    }
    return false;
  };
}

std::function<float(const std::string&)> layer_decay(const ModelConfig& config, double image_decay, double text_decay) {
  return [config, image_decay, text_decay](const std::string& name) {
    const LayerGroup g = layer_group(config, name);
    if (g.tower == LayerGroup::Tower::neither) return 1.0F;
    return static_cast<float>(std::pow(g.tower == LayerGroup::Tower::image ? image_decay : text_decay, g.groups - 1 - g.group));
  };
}

}  // namespace twinlens
