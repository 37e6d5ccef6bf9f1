#include <algorithm>
#include <filesystem>

#include "examples/twinlens/command.h"
#include "examples/twinlens/load.h"
#include "examples/twinlens/output.h"

#include "twinlens/core/safetensors.h"
#include "twinlens/kernels/error.h"

namespace twinlens::program {
namespace {

struct PreprocessFlags {
  std::string model, output, image;
  PictureFlags pictures;
  bool json = false;
};

int preprocess(const PreprocessFlags& flags) {
  std::error_code ignored;
  if (std::filesystem::equivalent(flags.image, flags.output, ignored))
    throw ConfigError("the picture is read, and would be replaced; --output " + flags.output + "; give another name");
  const ModelConfig config = find_model_config(flags.model);
  const EvalTransform transform = eval_transform_of(config);
  EmbedOptions options;
  flags.pictures.apply_to(options);
  const Image image = apply(transform, read_image(flags.image, decode_options(options, transform)));
  const std::vector<float> values = to_chw_float(image, config.preprocess.mean, config.preprocess.std);
  const std::int64_t size = transform.size;
  write_safetensors(flags.output, {{"pixels", from_vector(values, {3, size, size})}});
  const auto [low, high] = std::minmax_element(values.begin(), values.end());
  if (flags.json) {
    const nlohmann::ordered_json out{{"output", flags.output}, {"shape", {3, size, size}}, {"min", *low}, {"max", *high}};
    print_json(out);
  } else {
    print("3 x {0} x {0}, {1:.4f} to {2:.4f}: {3}\n", size, *low, *high, flags.output);
  }
  return 0;
}

}  // namespace

Action add_preprocess(CLI::App& app) {
  auto flags = std::make_shared<PreprocessFlags>();
  app.add_option("--model", flags->model, "Built-in name, open_clip config .json, or model folder")->required();
  app.add_option("--output", flags->output, "safetensors file; tensor `pixels` (3, S, S) f32")->required();
  flags->pictures.add_to(app, true, false);
  app.add_option("image", flags->image, "Image file")->required();
  app.add_flag("--json", flags->json, "One JSON document");
  app.footer("Example:\n  twinlens preprocess --model ViT-B-32 --output pixels.safetensors cat.jpg");
  return [flags] { return preprocess(*flags); };
}

}  // namespace twinlens::program
