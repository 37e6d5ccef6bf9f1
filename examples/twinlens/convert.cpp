#include <cstdio>
#include <nlohmann/json.hpp>

#include "examples/twinlens/command.h"
#include "examples/twinlens/output.h"
#include "examples/twinlens/sha256.h"

#include "twinlens/clip/pretrained.h"

namespace twinlens::program {
namespace {

struct ConvertFlags {
  std::string model, to, output, format = "safetensors";
  bool json = false;
};

int convert(const ConvertFlags& flags) {
  const Converted result = convert_model(flags.model, parse_layout(flags.to), flags.output,
                                         flags.format == "pt" ? WeightFormat::torch : WeightFormat::safetensors);
  for (const std::string& note : result.notes) std::fprintf(stderr, "note: %s\n", note.c_str());
  nlohmann::ordered_json out{{"from", name_of(result.from.layout)}, {"to", flags.to}, {"files", nlohmann::ordered_json::object()}};
  for (const std::string& file : result.files) out["files"][file] = sha256_of_file(file);
  if (!result.notes.empty()) out["notes"] = result.notes;
  if (flags.json) {
    print_json(out);
    return 0;
  }
  print("{} -> {}\n", name_of(result.from.layout), flags.to);
  for (const auto& [file, hash] : out["files"].items()) print("{}  {}\n", hash.get<std::string>(), file);
  return 0;
}

}  // namespace

Action add_convert(CLI::App& app) {
  auto flags = std::make_shared<ConvertFlags>();
  app.add_option("model,--model", flags->model, "Folder or file with weights: OpenAI's, open_clip's or Hugging Face's")->required();
  app.add_option("--to", flags->to, "openai, open_clip or hf")->required()->check(CLI::IsMember({"openai", "open_clip", "hf"}));
  app.add_option("--output,-o", flags->output, "Folder to write")->required();
  app.add_option("--format", flags->format,
                 "safetensors, or pt: a state dict as torch.save writes it (model.pt, open_clip_pytorch_model.bin, pytorch_model.bin)")
      ->capture_default_str()
      ->check(CLI::IsMember({"safetensors", "pt"}));
  app.add_flag("--json", flags->json, "One JSON document");
  app.footer(
      "Numbers and their types stay as they are, bit for bit; only names, joints and transposes change.\n"
      "Examples:\n  twinlens convert ViT-B-32.pt --to hf --output vit-b-32-hf\n"
      "  twinlens convert logs/quickstart/model --to openai --format pt --output for-openai\n"
      "  twinlens convert logs/first/model --to hf --output for-transformers");
  return [flags] { return convert(*flags); };
}

}  // namespace twinlens::program
