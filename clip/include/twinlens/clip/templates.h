#pragma once
// Prompt templates for zero-shot classification: a sentence with `{}` where the class name goes. A class is represented by the mean of
// the normalised embeddings of all its prompts.

#include <string>
#include <string_view>
#include <vector>

namespace twinlens {

// A preset name or a file with one template a line (empty lines and lines that begin with `#` are skipped). Presets:
//   openai   the 80 ImageNet templates of the CLIP paper
//   simple   the 7 that do nearly as well ("itap of a {}.", ...)
//   photo    "a photo of a {}."
//   none     "{}"
// In a file `{c}`, as clip_benchmark writes it, is `{}`. Throws FileError when it is neither, and ConfigError naming file and line when a
// template has no `{}`.
std::vector<std::string> load_templates(const std::string& preset_or_file);

// The template with every `{}` replaced.
std::string fill_template(std::string_view text, std::string_view class_name);

}  // namespace twinlens
