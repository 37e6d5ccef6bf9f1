#include <numeric>

#include "examples/twinlens/command.h"
#include "examples/twinlens/load.h"
#include "examples/twinlens/number_checks.h"
#include "examples/twinlens/output.h"

namespace twinlens::program {
namespace {

struct RankFlags {
  std::string model, text, device = "cpu";
  std::vector<std::string> images;
  PictureFlags pictures;
  int top = 0;
  bool json = false;
};

int rank(const RankFlags& flags) {
  const LoadedModel m = load(flags.model, flags.device);
  const std::vector<float> text = embed_texts(*m.clip, *m.tokenizer, {flags.text}).to_vector();
  EmbedOptions options;
  flags.pictures.apply_to(options);
  const EmbeddedFiles pictures = embed_usable_files(*m.clip, flags.images, options);
  const std::vector<float> images = pictures.features.to_vector();
  const double scale = logit_scale_of(m);
  std::vector<double> scores(pictures.names.size()), logits(pictures.names.size());
  for (std::size_t i = 0; i < scores.size(); ++i) {
    scores[i] = std::inner_product(text.begin(), text.end(), images.begin() + static_cast<std::ptrdiff_t>(i * text.size()), 0.0);
    logits[i] = scale * scores[i];
  }
  const std::vector<double> p = probabilities(logits);
  nlohmann::ordered_json results = nlohmann::ordered_json::array();
  const std::size_t count = flags.top > 0 ? static_cast<std::size_t>(flags.top) : scores.size();
  for (const std::size_t i : best_first(scores, count)) {
    if (flags.json) {
      results.push_back({{"image", pictures.names[i]}, {"text", flags.text}, {"score", scores[i]}, {"probability", p[i]}});
    } else {
      print("{:>8.2f} %  {:.4f}  {}\n", 100 * p[i], scores[i], pictures.names[i]);
    }
  }
  if (flags.json) print_json(results_json(results, pictures.skipped));
  return 0;
}

}  // namespace

Action add_rank(CLI::App& app) {
  auto flags = std::make_shared<RankFlags>();
  app.add_option("--model", flags->model, "Model folder, or a file with weights")->required();
  app.add_option("--text", flags->text, "The caption")->required();
  add_device(app, flags->device);
  app.add_option("--top", flags->top, "Only so many, the best; default: all")->check(at_least(1));
  flags->pictures.add_to(app);
  app.add_option("images", flags->images, "Image files, folders or tars; pictures that cannot be read are skipped")->required();
  app.add_flag("--json", flags->json, "One JSON document");
  app.footer("Example:\n  twinlens rank --model logs/quickstart/model --text 'red heart' generated/*.png");
  return [flags] { return rank(*flags); };
}

}  // namespace twinlens::program
