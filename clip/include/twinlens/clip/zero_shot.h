#pragma once
// Zero-shot classification (Radford et al. 2021, section 3.1): every class name is put into every template, the texts are encoded,
// normalised, averaged and normalised again.

#include <string>
#include <vector>

#include "twinlens/clip/embedding.h"

namespace twinlens {

// (C, E): one unit vector a class.
Tensor zero_shot_classifier(const Clip& model, const Tokenizer& tokenizer, const std::vector<std::string>& classes,
                            const std::vector<std::string>& templates, const EmbedOptions& options = {});

}  // namespace twinlens
