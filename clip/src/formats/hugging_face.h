#pragma once
// config.json and preprocessor_config.json of Hugging Face's CLIPModel and SiglipModel (transformers models/clip, models/siglip).

#include <string>

#include "twinlens/clip/config.h"

namespace twinlens {

// Throws ConfigError naming `source` and what is not supported.
ModelConfig parse_hugging_face_config(const std::string& json, const std::string& source);
// Into `out.preprocess`; `out` is the model that the pictures are for.
void parse_hugging_face_preprocess(const std::string& json, const std::string& source, ModelConfig& out);

// For models that layout_pieces(Layout::hugging_face, ...) accepts.
std::string hugging_face_config(const ModelConfig& config);
std::string hugging_face_preprocess(const ModelConfig& config);

}  // namespace twinlens
