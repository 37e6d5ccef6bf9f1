#include <cstdio>
#include <fmt/format.h>
#include <nlohmann/json.hpp>

#include "examples/twinlens/command.h"
#include "examples/twinlens/sha256.h"

#include "twinlens/clip/model_cost.h"
#include "twinlens/clip/pretrained.h"
#include "twinlens/kernels/isa.h"
#include "twinlens/kernels/parallel.h"
#include "twinlens/kernels/stream.h"

namespace twinlens::program {
namespace {

struct Flags {
  std::string model;
  bool json = false;
};

int info(const Flags& flags) {
  const ModelConfig config = find_model_config(flags.model);
  const ModelCost cost = model_cost(config);
  const std::string weights = weights_file(flags.model);
  nlohmann::ordered_json out = nlohmann::ordered_json::parse(to_json(config));
  out["model"] = flags.model;
  out["parameters"] = cost.parameters();
  out["image_parameters"] = cost.image_parameters;
  out["text_parameters"] = cost.text_parameters;
  out["forward_gflops"] = cost.image_gflops + cost.text_gflops;
  out["image_gflops"] = cost.image_gflops;
  out["text_gflops"] = cost.text_gflops;
  out["layout"] = weights.empty() ? "none (no weights)" : "open_clip";
  const std::string hash = weights.empty() ? std::string() : sha256_of_file(weights);
  if (!weights.empty()) {
    out["weights"] = weights;
    out["sha256"] = hash;
  }
  out["instruction_set"] = name_of(active_isa());
  out["threads"] = thread_count();
  out["cuda"] = cuda_device_count() > 0 ? "available" : cuda_unavailable_reason();
  if (flags.json) {
    std::printf("%s\n", out.dump().c_str());
    return 0;
  }
  std::printf("%s", to_json(config).c_str());
  fmt::print("parameters       {:>13} (image {}, text {})\n", cost.parameters(), cost.image_parameters, cost.text_parameters);
  fmt::print("forward          {:>10.2f} GFLOP a pair (image {:.2f}, text {:.2f} at {} tokens)\n", cost.image_gflops + cost.text_gflops,
             cost.image_gflops, cost.text_gflops, config.text.context_length);
  fmt::print("weights          {}\n", weights.empty() ? "none: a configuration only" : weights);
  if (!weights.empty()) fmt::print("sha256           {}\n", hash);
  fmt::print("instruction set  {}, {} threads\n", name_of(active_isa()), thread_count());
  fmt::print("cuda             {}\n", cuda_device_count() > 0 ? "available" : cuda_unavailable_reason());
  return 0;
}

}  // namespace

Action add_info(CLI::App& app) {
  auto flags = std::make_shared<Flags>();
  app.add_option("model", flags->model, "Built-in name, open_clip config .json, or model folder")->required();
  app.add_flag("--json", flags->json, "One JSON document");
  app.footer("Examples:\n  twinlens info ViT-B-32\n  twinlens info logs/quickstart/model --json");
  return [flags] { return info(*flags); };
}

}  // namespace twinlens::program
