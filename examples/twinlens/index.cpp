#include <cstdio>

#include "examples/twinlens/command.h"
#include "examples/twinlens/load.h"
#include "examples/twinlens/number_checks.h"
#include "examples/twinlens/output.h"

#include "twinlens/clip/picture_index.h"

namespace twinlens::program {
namespace {

struct IndexFlags {
  std::string model, index, device = "cpu", precision = "fp32";
  std::vector<std::string> sources;
  PictureFlags pictures;
  int batch_size = 64;
  bool json = false;
};

int index(const IndexFlags& flags) {
  const LoadedModel m = load(flags.model, flags.device, flags.precision);
  EmbedOptions options = embed_options(flags.batch_size, flags.precision, flags.device);
  flags.pictures.apply_to(options);
  const IndexResult result = build_index(
      *m.clip, *m.tokenizer, flags.model, flags.sources, flags.index, options, [] { return stop_requested().load(); },
      [](const SkippedSample& s) { std::fprintf(stderr, "skipped %s: %s\n", s.key.c_str(), s.reason.c_str()); });
  if (flags.json) {
    const nlohmann::ordered_json out{
        {"index", flags.index}, {"count", result.count}, {"skipped", result.skipped}, {"stopped_early", result.stopped}};
    print_json(out);
  } else {
    print("{} pictures{}: {}\n", result.count, result.stopped ? ", stopped early" : "", flags.index);
  }
  return 0;
}

}  // namespace

Action add_index(CLI::App& app) {
  auto flags = std::make_shared<IndexFlags>();
  app.add_option("--model", flags->model, "Model folder, or a file with weights")->required();
  app.add_option("--index,--output", flags->index, "Folder of the index; it is made, or, where it is an index, replaced")->required();
  app.add_option("--batch-size", flags->batch_size, "Pictures or texts encoded at once")->capture_default_str()->check(at_least(1));
  add_precision(app, flags->precision);
  add_device(app, flags->device);
  flags->pictures.add_to(app);
  app.add_option("pictures", flags->sources, "Folders, tars or picture files")->required();
  app.add_flag("--json", flags->json, "One JSON document");
  app.footer("Example:\n  twinlens index --model logs/quickstart/model --index holiday.index ~/Pictures/holiday");
  return [flags] { return index(*flags); };
}

}  // namespace twinlens::program
