
#include "examples/twinlens/command.h"
#include "examples/twinlens/load.h"
#include "examples/twinlens/number_checks.h"
#include "examples/twinlens/output.h"

#include "twinlens/clip/picture_index.h"
#include "twinlens/kernels/error.h"

namespace twinlens::program {
namespace {

struct SearchFlags {
  std::string model, index, text, image, device = "cpu";
  PictureFlags pictures;
  int top = 10;
  bool json = false;
};

int search(const SearchFlags& flags) {
  if (flags.text.empty() == flags.image.empty()) return wrong_usage("give either a text or --image, not both and not none", "search");
  const LoadedModel m = load(flags.model, flags.device);
  const PictureIndex index(flags.index, *m.clip, *m.tokenizer);
  EmbedOptions options;
  flags.pictures.apply_to(options);
  const Tensor query = flags.text.empty() ? index.query(*m.clip, flags.image, options) : embed_texts(*m.clip, *m.tokenizer, {flags.text});
  const std::string& asked = flags.text.empty() ? flags.image : flags.text;
  nlohmann::ordered_json results = nlohmann::ordered_json::array();
  for (const Found& found : index.search(query, flags.top, logit_scale_of(m))) {
    if (flags.json) {
      results.push_back({{"image", found.image}, {"text", asked}, {"score", found.score}, {"probability", found.probability}});
    } else {
      print("{:>8.2f} %  {:.4f}  {}\n", 100 * found.probability, found.score, found.image);
    }
  }
  if (flags.json) print_json(nlohmann::ordered_json{{"results", results}});
  return 0;
}

}  // namespace

Action add_search(CLI::App& app) {
  auto flags = std::make_shared<SearchFlags>();
  app.add_option("--model", flags->model, "The model folder that made the index")->required();
  app.add_option("--index", flags->index, "Folder made by twinlens index")->required();
  app.add_option("--image", flags->image, "Search by this picture instead of a text; it is decoded as the index's were");
  app.add_option("--top", flags->top, "How many pictures")->capture_default_str()->check(at_least(1));
  add_device(app, flags->device);
  flags->pictures.add_to(app, false);
  app.add_option("--text,text", flags->text, "What to search for");
  app.add_flag("--json", flags->json, "One JSON document");
  app.footer(
      "Examples:\n  twinlens search --model logs/quickstart/model --index holiday.index 'a boat at sunset'\n"
      "  twinlens search --model logs/quickstart/model --index holiday.index --image boat.jpg --top 3");
  return [flags] { return search(*flags); };
}

}  // namespace twinlens::program
