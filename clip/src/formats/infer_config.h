#pragma once
// The configuration of weights without a config file, from the shapes of their tensors (OpenAI clip/model.py build_model).

#include <map>
#include <string>
#include <vector>

#include "twinlens/clip/config.h"

namespace twinlens {

using TensorShapes = std::map<std::string, std::vector<std::int64_t>>;

// OpenAI's or open_clip's names. Heads are width / 64, unless a built-in model has just these sizes. Throws ConfigError for shapes that are
// no CLIP.
ModelConfig infer_config(const TensorShapes& shapes, const std::string& source);

// Of a configuration that was inferred: what would have to be guessed, with a wrong guess giving other features; empty when nothing.
std::string not_in_shapes(const ModelConfig& inferred);

// What has been guessed of its heads, for people; empty for the sizes of a built-in model, whose heads are known.
std::string guess_of_heads(const ModelConfig& inferred);

// The ratio whose product with the width is cut down to `hidden`.
double mlp_ratio_of(int hidden, int width);

}  // namespace twinlens
