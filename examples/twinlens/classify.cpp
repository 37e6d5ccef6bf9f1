#include <numeric>

#include "examples/twinlens/command.h"
#include "examples/twinlens/load.h"
#include "examples/twinlens/number_checks.h"
#include "examples/twinlens/output.h"

#include "twinlens/clip/templates.h"
#include "twinlens/clip/zero_shot.h"

namespace twinlens::program {
namespace {

struct ClassifyFlags {
  std::string model, classes, templates = "photo", device = "cpu";
  std::vector<std::string> images;
  int top = 5;
  PictureFlags pictures;
  bool json = false;
};

int classify(const ClassifyFlags& flags) {
  const std::vector<std::string> names = read_classes(flags.classes).names;
  const LoadedModel m = load(flags.model, flags.device);
  const Tensor classes = zero_shot_classifier(*m.clip, *m.tokenizer, names, load_templates(flags.templates));
  EmbedOptions options;
  flags.pictures.apply_to(options);
  const EmbeddedFiles images = embed_usable_files(*m.clip, flags.images, options);
  const double scale = logit_scale_of(m);
  const std::vector<float> i = images.features.to_vector(), c = classes.to_vector();
  const auto d = static_cast<std::size_t>(images.features.size(1));
  nlohmann::ordered_json results = nlohmann::ordered_json::array();
  for (std::size_t n = 0; n < images.names.size(); ++n) {
    std::vector<double> scores(names.size()), logits(names.size());
    for (std::size_t k = 0; k < names.size(); ++k) {
      scores[k] = std::inner_product(i.begin() + static_cast<std::ptrdiff_t>(n * d), i.begin() + static_cast<std::ptrdiff_t>((n + 1) * d),
                                     c.begin() + static_cast<std::ptrdiff_t>(k * d), 0.0);
      logits[k] = scale * scores[k];
    }
    const std::vector<double> p = probabilities(logits);
    if (!flags.json) print("{}\n", images.names[n]);
    for (const std::size_t k : best_first(scores, static_cast<std::size_t>(flags.top))) {
      if (flags.json) {
        results.push_back({{"image", images.names[n]}, {"label", names[k]}, {"score", scores[k]}, {"probability", p[k]}});
      } else {
        print("{:>8.2f} %  {}\n", 100 * p[k], names[k]);
      }
    }
  }
  if (flags.json) print_json(results_json(results, images.skipped));
  return 0;
}

}  // namespace

Action add_classify(CLI::App& app) {
  auto flags = std::make_shared<ClassifyFlags>();
  app.add_option("--model", flags->model, "Model folder, or a file with weights")->required();
  app.add_option("--classes", flags->classes, "File with one class name a line")->required();
  app.add_option("--templates", flags->templates, "openai, simple, photo, none, or a file with one template a line, {} for the name")
      ->capture_default_str();
  app.add_option("--top", flags->top, "Labels per image")->capture_default_str()->check(at_least(1));
  add_device(app, flags->device);
  flags->pictures.add_to(app);
  app.add_option("images", flags->images, "Image files, folders or tars; pictures that cannot be read are skipped")->required();
  app.add_flag("--json", flags->json, "One JSON document");
  app.footer("Example:\n  twinlens classify --model logs/quickstart/model --classes names.txt --top 3 cat.png dog.jpg");
  return [flags] { return classify(*flags); };
}

}  // namespace twinlens::program
