#include <cstdio>
#include <iostream>
#include <nlohmann/json.hpp>

#include "examples/twinlens/command.h"

#include "twinlens/clip/embedding.h"

namespace twinlens::program {
namespace {

struct Flags {
  std::string model;
  int context_length = 77;
  bool json = false;
};

int tokenize(const Flags& flags, bool context_given) {
  int context = flags.context_length;
  if (!flags.model.empty() && !context_given) context = find_model_config(flags.model).text.context_length;
  const auto tokenizer = flags.model.empty() ? clip_tokenizer() : tokenizer_of(find_model_config(flags.model));
  std::string line;
  nlohmann::json all = nlohmann::json::array();
  while (std::getline(std::cin, line)) {
    nlohmann::json ids = tokenizer->tokenize(line, context).ids;
    if (flags.json) {
      all.push_back(std::move(ids));
    } else {
      std::printf("%s\n", ids.dump().c_str());
    }
  }
  if (flags.json) std::printf("%s\n", all.dump().c_str());
  return 0;
}

}  // namespace

Action add_tokenize(CLI::App& app) {
  auto flags = std::make_shared<Flags>();
  app.add_option("--model", flags->model, "Takes the context length from this model");
  CLI::Option* context = app.add_option("--context-length", flags->context_length, "Longer lines are cut, keeping the end-of-text token")
                             ->capture_default_str()
                             ->check(CLI::Range(2, 1 << 20));
  app.add_flag("--json", flags->json, "One array of arrays");
  app.footer("Example:\n  echo 'a photo of a cat' | twinlens tokenize");
  return [flags, context] { return tokenize(*flags, context->count() > 0); };
}

}  // namespace twinlens::program
