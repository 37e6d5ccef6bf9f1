#include "twinlens/clip/zero_shot.h"

#include "twinlens/clip/templates.h"
#include "twinlens/core/autograd.h"
#include "twinlens/core/check.h"
#include "twinlens/core/ops.h"

namespace twinlens {

Tensor zero_shot_classifier(const Clip& model, const Tokenizer& tokenizer, const std::vector<std::string>& classes,
                            const std::vector<std::string>& templates, const EmbedOptions& options) {
  const NoGrad guard;
  check(!classes.empty() && !templates.empty(), "zero_shot_classifier", "needs at least one class and one template");
  for (const std::string& form : templates)
    check(form.find("{}") != std::string::npos, "zero_shot_classifier", "template '" + form + "' has no {} for the name of a class");
  std::vector<std::string> prompts;
  for (const std::string& name : classes) {
    for (const std::string& form : templates) prompts.push_back(fill_template(form, name));
  }
  EmbedOptions unit = options;
  unit.normalize = true;
  const Tensor features = embed_texts(model, tokenizer, prompts, unit);  // (C * templates, E)
  const auto c = static_cast<std::int64_t>(classes.size()), t = static_cast<std::int64_t>(templates.size());
  return l2_normalize(mean(features.reshape({c, t, features.size(1)}), {{1}, false}));
}

}  // namespace twinlens
