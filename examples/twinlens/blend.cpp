#include "twinlens/clip/blend.h"

#include <nlohmann/json.hpp>

#include "examples/twinlens/command.h"
#include "examples/twinlens/number_checks.h"
#include "examples/twinlens/output.h"
#include "examples/twinlens/sha256.h"

#include "twinlens/clip/pretrained.h"
#include "twinlens/clip/tokenizer_files.h"
#include "twinlens/kernels/error.h"

namespace twinlens::program {
namespace {

struct BlendFlags {
  std::string before, after, output;
  double alpha = 0.5;
  bool json = false;
};

int blend(const BlendFlags& flags) {
  if (!weights_file(flags.output).empty()) {
    throw ConfigError("the folder holds a model already; --output " + flags.output + "; name another folder");
  }
  const ModelSource after = find_source(flags.after, "AFTER");
  const std::unique_ptr<Clip> tuned = load_model(after);
  Clip model(tuned->config, 0);
  load_weights(model, flags.before, "BEFORE");
  twinlens::blend(model, *tuned, flags.alpha);
  save_model(model, flags.output);
  write_tokenizer_files(read_tokenizer_files(flags.after), flags.output);
  const std::string weights = weights_file(flags.output);
  if (flags.json) {
    print_json(nlohmann::ordered_json{{"alpha", flags.alpha}, {"files", {{weights, sha256_of_file(weights)}}}});
  } else {
    print("{} of {} and {} of {}\n{}  {}\n", 1.0 - flags.alpha, flags.before, flags.alpha, flags.after, sha256_of_file(weights), weights);
  }
  return 0;
}

}  // namespace

Action add_blend(CLI::App& app) {
  auto flags = std::make_shared<BlendFlags>();
  app.add_option("before", flags->before, "Folder or file with the weights that fine-tuning began with")->required();
  app.add_option("after", flags->after, "The fine-tuned model")->required();
  app.add_option("--alpha", flags->alpha, "0: the weights of BEFORE, 1: those of AFTER")->capture_default_str()->check(within(0, 1));
  app.add_option("--output,-o", flags->output, "Folder to write, in open_clip's layout, f32")->required();
  app.add_flag("--json", flags->json, "One JSON document");
  app.footer(
      "WiSE-FT: between a model and its fine-tuned self there is often one that is as good at the new task and forgets less of the old.\n"
      "Example:\n  twinlens blend vit-b-32 logs/tuned/model --alpha 0.5 --output between");
  return [flags] { return blend(*flags); };
}

}  // namespace twinlens::program
