#include <cstdio>
#include <fmt/format.h>

#include "examples/twinlens/command.h"
#include "examples/twinlens/load.h"

#include "twinlens/core/safetensors.h"
#include "twinlens/kernels/error.h"

namespace twinlens::program {
namespace {

struct Flags {
  std::string model, texts, output, device = "cpu", precision = "fp32";
  std::vector<std::string> images;
  int batch_size = 64;
  bool normalize = true, json = false;
};

Tensor features(const Flags& flags, const LoadedModel& m) {
  EmbedOptions options = embed_options(flags.batch_size, flags.precision);
  options.normalize = flags.normalize;
  if (!flags.texts.empty()) return embed_texts(*m.clip, *m.tokenizer, read_lines(flags.texts), options);
  return embed_image_files(*m.clip, flags.images, options);
}

int embed(const Flags& flags) {
  if (flags.images.empty() == flags.texts.empty())
    throw ConfigError("give either --images or --texts; command line; not both and not none");
  const LoadedModel m = load(flags.model, flags.device);
  const Tensor out = features(flags, m);
  write_safetensors(flags.output, {{"embeddings", out}});
  if (flags.json) {
    std::printf("%s\n", nlohmann::ordered_json{{"output", flags.output}, {"count", out.size(0)}, {"dim", out.size(1)}}.dump().c_str());
  } else {
    fmt::print("{} embeddings of {} numbers: {}\n", out.size(0), out.size(1), flags.output);
  }
  return 0;
}

}  // namespace

Action add_embed(CLI::App& app) {
  auto flags = std::make_shared<Flags>();
  app.add_option("--model", flags->model, "Model folder")->required();
  app.add_option("--images", flags->images, "Image files");
  app.add_option("--texts", flags->texts, "File with one text a line");
  app.add_option("--output", flags->output, "safetensors file; tensor `embeddings` (N, E) f32")->required();
  app.add_option("--batch-size", flags->batch_size)->capture_default_str()->check(CLI::PositiveNumber);
  app.add_option("--precision", flags->precision, "fp32, tf32, amp_bf16 (bf16 is read as amp_bf16) or amp")
      ->capture_default_str()
      ->check(CLI::IsMember({"fp32", "tf32", "amp_bf16", "bf16", "amp"}));
  app.add_option("--device", flags->device, "cpu or cuda[:i]")->capture_default_str();
  app.add_flag("!--no-normalize", flags->normalize, "Leave the features at their length");
  app.add_flag("--json", flags->json, "One JSON document");
  app.footer(
      "Examples:\n  twinlens embed --model logs/quickstart/model --images *.png --output images.safetensors\n"
      "  twinlens embed --model logs/quickstart/model --texts captions.txt --output texts.safetensors");
  return [flags] { return embed(*flags); };
}

}  // namespace twinlens::program
