#include <nlohmann/json.hpp>
#include <optional>

#include "examples/twinlens/command.h"
#include "examples/twinlens/output.h"
#include "examples/twinlens/sha256.h"

#include "twinlens/clip/model_cost.h"
#include "twinlens/clip/pretrained.h"
#include "twinlens/kernels/isa.h"
#include "twinlens/kernels/parallel.h"
#include "twinlens/kernels/stream.h"

namespace twinlens::program {
namespace {

using Json = nlohmann::ordered_json;

struct InfoFlags {
  std::string model;
  bool json = false;
};

struct Saving {
  const char* name;
  bool applies;
  const char* why;
};

// Which of the ways to the same numbers with less work apply to a model.
std::vector<Saving> savings_of(const ModelConfig& c) {
  const bool causal = c.text.needs_no_padding(), resnet = c.vision.is_resnet();
  return {{"captions_without_padding", causal,
           causal ? "the text tower is causal and read at the end of text" : "the text tower reads its padding"},
          {"last_text_block_for_one_row", causal || c.text.no_causal_mask || c.text.pool_type == "last", "one token is read"},
          {"last_image_block_for_one_row", c.vision.pools_one_token(),
           c.vision.pools_one_token() ? "the class token is read"
           : resnet                   ? "a ResNet has no blocks of tokens; its attention pool has one query anyway"
                                      : "pooling reads every token"},
          {"chunks_of_a_batch", !resnet, resnet ? "batch norm takes its statistics from each chunk" : "every sample is on its own"},
          {"equal_captions_once", true, "the text tower has no dropout"}};
}

// Names, with what tells them apart.
int list_models(bool json) {
  Json models = Json::array();
  if (!json) print("{:<24} {:>6} {:>9} {:>12} {:>14}\n", "model", "image", "captions", "parameters", "GFLOP a pair");
  for (const std::string& name : builtin_model_names()) {
    const ModelConfig config = *builtin_model_config(name);
    const ModelCost cost = model_cost(config);
    if (json) {
      models.push_back({{"model", name},
                        {"image_size", config.vision.image_size},
                        {"context_length", config.text.context_length},
                        {"parameters", cost.parameters()},
                        {"forward_gflops", cost.image_gflops + cost.text_gflops}});
    } else {
      print("{:<24} {:>6} {:>9} {:>10.0f} M {:>14.1f}\n", name, config.vision.image_size, config.text.context_length,
            static_cast<double>(cost.parameters()) / 1e6, cost.image_gflops + cost.text_gflops);
    }
  }
  if (json) print_json(Json{{"models", models}});
  if (!json) print("These are architectures; weights are files (--pretrained). twinlens info MODEL says more of one.\n");
  return 0;
}

Json description_of(const InfoFlags& flags, const ModelConfig& config, const std::optional<ModelSource>& source) {
  const ModelCost cost = model_cost(config);
  Json out = Json::parse(to_json(config));
  out["model"] = flags.model;
  out["parameters"] = cost.parameters();
  out["image_parameters"] = cost.image_parameters;
  out["text_parameters"] = cost.text_parameters;
  out["forward_gflops"] = cost.image_gflops + cost.text_gflops;
  out["image_gflops"] = cost.image_gflops;
  out["text_gflops"] = cost.text_gflops;
  out["layout"] = source.has_value() ? name_of(source->layout) : "none (no weights)";
  if (source.has_value()) {
    out["config_from"] = source->config_inferred      ? "shapes of the weights"
                         : source->config_in_metadata ? "metadata of the weights"
                                                      : "config file";
    if (!source->guess.empty()) out["guess"] = source->guess;
    out["weights"] = source->weights.front();
    out["sha256"] = sha256_of_file(source->weights.front());
    for (std::size_t i = 1; i < source->weights.size(); ++i) out["shards"][source->weights[i]] = sha256_of_file(source->weights[i]);
    if (source->quick_gelu.has_value()) {
      out["trained_with"] = *source->quick_gelu ? "QuickGELU" : "GELU";
      out["trained_with_reason"] = source->quick_gelu_reason;
    }
  }
  for (const Saving& s : savings_of(config)) out["exact_savings"][s.name] = s.applies;
  out["instruction_set"] = name_of(active_isa());
  out["threads"] = thread_count();
  out["cuda"] = cuda_device_count() > 0 ? "available" : cuda_unavailable_reason();
  return out;
}

int info(const InfoFlags& flags) {
  if (flags.model.empty()) return list_models(flags.json);
  std::optional<ModelSource> source;
  if (!builtin_model_config(flags.model) && !weights_file(flags.model).empty()) source = find_source(flags.model, "MODEL");
  const ModelConfig config = source.has_value() ? source->config : find_model_config(flags.model, "MODEL");
  const Json out = description_of(flags, config, source);
  if (flags.json) {
    print_json(out);
    return 0;
  }
  const ModelCost cost = model_cost(config);
  print_text(to_json(config));
  print("parameters       {:>13} (image {}, text {})\n", cost.parameters(), cost.image_parameters, cost.text_parameters);
  print("forward          {:>10.2f} GFLOP a pair (image {:.2f}, text {:.2f} at {} tokens)\n", cost.image_gflops + cost.text_gflops,
        cost.image_gflops, cost.text_gflops, config.text.context_length);
  if (source.has_value()) {
    print("weights          {}\nlayout           {}, config from {}\n", source->weights.front(), name_of(source->layout),
          out["config_from"].get<std::string>());
    print("sha256           {}\n", out["sha256"].get<std::string>());
    for (std::size_t i = 1; i < source->weights.size(); ++i) {
      print("                 {} {}\n", out["shards"][source->weights[i]].get<std::string>(), source->weights[i]);
    }
    if (source->quick_gelu.has_value()) {
      print("trained with     {} ({})\n", *source->quick_gelu ? "QuickGELU" : "GELU", source->quick_gelu_reason);
    }
  } else {
    print("weights          none: a configuration only\n");
  }
  print("exact savings\n");
  for (const Saving& s : savings_of(config)) print("  {:<28} {}: {}\n", s.name, s.applies ? "yes" : "no", s.why);
  print("instruction set  {}, {} threads\n", name_of(active_isa()), thread_count());
  print("cuda             {}\n", cuda_device_count() > 0 ? "available" : cuda_unavailable_reason());
  return 0;
}

}  // namespace

Action add_info(CLI::App& app) {
  auto flags = std::make_shared<InfoFlags>();
  app.add_option("model,--model", flags->model,
                 "Built-in name, open_clip config .json, or a folder or file with weights in any layout; default: the built-in names");
  app.add_flag("--json", flags->json, "One JSON document");
  app.footer("Examples:\n  twinlens info\n  twinlens info ViT-B-32\n  twinlens info logs/quickstart/model --json");
  return [flags] { return info(*flags); };
}

}  // namespace twinlens::program
