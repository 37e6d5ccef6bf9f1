#pragma once
// Models with weights: open_clip's hub layout, a folder with open_clip_config.json and open_clip_model.safetensors.

#include <memory>
#include <string>

#include "twinlens/clip/model.h"

namespace twinlens {

// The weights file that `model` (a folder, or a .safetensors beside an open_clip_config.json) names; empty when it names none.
std::string weights_file(const std::string& model);

// Config and weights. Throws ConfigError for a name without weights or weights that do not fit, FileError for unreadable files.
std::unique_ptr<Clip> load_model(const std::string& model);

// Copies the weights of `from` (as above) into a model of the same configuration.
void load_weights(Clip& model, const std::string& from);

// Writes the hub layout into `folder`, each file atomically.
void save_model(Clip& model, const std::string& folder);

}  // namespace twinlens
