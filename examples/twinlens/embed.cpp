#include <algorithm>
#include <cstdio>
#include <filesystem>
#include <optional>

#include "examples/twinlens/command.h"
#include "examples/twinlens/load.h"
#include "examples/twinlens/number_checks.h"
#include "examples/twinlens/output.h"

#include "twinlens/clip/embed_stream.h"
#include "twinlens/clip/embedding_file.h"
#include "twinlens/clip/picture_stream.h"
#include "twinlens/clip/tokenizer_files.h"
#include "twinlens/kernels/error.h"

namespace twinlens::program {
namespace {

struct EmbedFlags {
  std::string model, texts, output, names, device = "cpu", precision = "fp32";
  std::vector<std::string> images;
  PictureFlags pictures;
  int batch_size = 64;
  bool normalize = true, json = false;
};

struct Result {
  std::int64_t skipped = 0;
  bool stopped = false, kept = false;  // kept: nothing is written
};

bool is_file(const std::string& path) {
  std::error_code ignored;
  return std::filesystem::is_regular_file(path, ignored);
}

// Everything goes to the files batch by batch; they appear under their names at the end.
Result embed_all(const EmbedFlags& flags, const LoadedModel& m, const EmbedOptions& options, EmbeddingWriter& out) {
  std::optional<AtomicFile> names;
  if (!flags.names.empty()) names.emplace(flags.names);
  Result result;
  const auto take = [&](const Tensor& rows, const std::vector<std::string>& batch) {
    out.append(rows);
    for (const std::string& name : batch) {
      if (names.has_value()) names->write((name + "\n").data(), name.size() + 1);
    }
    result.stopped = stop_requested();
    return !result.stopped;
  };
  if (!flags.texts.empty()) {
    std::ifstream lines = open_lines(flags.texts);
    embed_lines(*m.clip, *m.tokenizer, lines, flags.texts, options, take);
  } else {
    PictureStream pictures(flags.images);
    embed_stream(*m.clip, pictures, options, take, [&](const SkippedSample& s) {
      ++result.skipped;
      std::fprintf(stderr, "skipped %s: %s\n", s.key.c_str(), s.reason.c_str());
    });
  }
  if (out.count() == 0) {
    const std::string& source = flags.texts.empty() ? flags.images.front() : flags.texts;
    throw FileError((flags.texts.empty() ? "no usable picture; " : "file has no lines; ") + source + "; check the path");
  }
  // What was there before is worth more than a part of what was to replace it.
  result.kept = result.stopped && is_file(flags.output);
  if (result.kept) return result;
  out.finish();
  if (names.has_value()) names->commit();
  return result;
}

// Where a path leads, however it is written.
std::filesystem::path place_of(const std::string& path) {
  std::error_code unreadable;
  // (Of a path whose first part is not there weakly_canonical() would stay relative.)
  const std::filesystem::path absolute = std::filesystem::absolute(path, unreadable);
  const std::filesystem::path place = std::filesystem::weakly_canonical(absolute, unreadable);
  return unreadable ? absolute.lexically_normal() : place;
}

// What is read: pictures or texts, and of the model its weights, configuration and tokenizer.
std::vector<std::string> sources_of(const EmbedFlags& flags) {
  std::vector<std::string> sources = flags.images;
  if (!flags.texts.empty()) sources.push_back(flags.texts);
  for (const std::string& weights : find_source(flags.model).weights) {
    sources.push_back(weights);
    for (const char* config : {"open_clip_config.json", "config.json"})
      sources.push_back((std::filesystem::path(weights).parent_path() / config).string());
  }
  const std::string tokenizer = tokenizer_folder(flags.model);
  for (const std::string& name : tokenizer_files_in(tokenizer)) sources.push_back((std::filesystem::path(tokenizer) / name).string());
  return sources;
}

// Whether a source is this file, or a folder in which it is a picture or a tar.
bool reads(const std::string& source, const std::string& file) {
  std::error_code ignored;
  if (!std::filesystem::is_directory(source, ignored)) return std::filesystem::equivalent(source, file, ignored);
  const std::filesystem::path folder = place_of(source), place = place_of(file);
  const auto [end, unused] = std::mismatch(folder.begin(), folder.end(), place.begin(), place.end());
  return end == folder.end() && is_file(file) && PictureStream::takes(place.filename().string());
}

// A file that is there is replaced, but not one that is read.
void keep(const std::vector<std::string>& sources, const char* flag, const std::string& written) {
  for (const std::string& source : sources) {
    if (reads(source, written))
      throw ConfigError("the file is read, and would be replaced; " + std::string(flag) + " " + written + "; give another name");
  }
}

int embed(const EmbedFlags& flags) {
  if (flags.images.empty() == flags.texts.empty()) return wrong_usage("give either --images or --texts, not both and not none", "embed");
  if (!flags.names.empty() && place_of(flags.names) == place_of(flags.output))
    throw ConfigError("names and embeddings would be one file; --output, --names " + flags.names + "; give two");
  const std::vector<std::string> sources = sources_of(flags);
  keep(sources, "--output", flags.output);
  if (!flags.names.empty()) keep(sources, "--names", flags.names);
  const LoadedModel m = load(flags.model, flags.device, flags.precision);
  EmbedOptions options = embed_options(flags.batch_size, flags.precision, flags.device);
  options.normalize = flags.normalize;
  flags.pictures.apply_to(options);
  const bool replaces = is_file(flags.output), replaces_names = !flags.names.empty() && is_file(flags.names);
  EmbeddingWriter out(flags.output, flags.images.empty() ? Metadata{} : decoding_metadata(options));
  const Result result = embed_all(flags, m, options, out);
  if (result.kept) std::fprintf(stderr, "note: stopped early, the file that was there is kept; --output %s\n", flags.output.c_str());
  if (replaces && !result.kept) std::fprintf(stderr, "note: the file that was there is replaced; --output %s\n", flags.output.c_str());
  if (replaces_names && !result.kept) std::fprintf(stderr, "note: the file that was there is replaced; --names %s\n", flags.names.c_str());
  if (flags.json) {
    const nlohmann::ordered_json json{{"output", flags.output},
                                      {"count", out.count()},
                                      {"dim", out.width()},
                                      {"skipped", result.skipped},
                                      {"stopped_early", result.stopped}};
    print_json(json);
  } else {
    print("{} embeddings of {} numbers{}: {}\n", out.count(), out.width(), result.stopped ? ", stopped early" : "", flags.output);
  }
  return 0;
}

}  // namespace

Action add_embed(CLI::App& app) {
  auto flags = std::make_shared<EmbedFlags>();
  app.add_option("--model", flags->model, "Model folder, or a file with weights")->required();
  app.add_option("--images", flags->images, "Image files, folders or tars, of any size: memory is that of a batch");
  app.add_option("--texts", flags->texts, "File with one text a line; empty lines are left out");
  app.add_option("--output", flags->output, "safetensors file; tensor `embeddings` (N, E) f32. One that is there is replaced")->required();
  app.add_option(
      "--names", flags->names,
      "File for the names of the rows, one a line; one that is there is replaced. In folders and tars, pictures that cannot be used "
      "are left out, and so are those whose names have line breaks");
  app.add_option("--batch-size", flags->batch_size, "Pictures or texts encoded at once")->capture_default_str()->check(at_least(1));
  add_precision(app, flags->precision);
  add_device(app, flags->device);
  flags->pictures.add_to(app);
  app.add_flag("!--no-normalize", flags->normalize, "Leave the features at their length");
  app.add_flag("--json", flags->json, "One JSON document");
  app.footer(
      "Examples:\n  twinlens embed --model logs/quickstart/model --images *.png --output images.safetensors\n"
      "  twinlens embed --model logs/quickstart/model --images pictures/ shard-000.tar --names names.txt --output images.safetensors\n"
      "  twinlens embed --model logs/quickstart/model --texts captions.txt --output texts.safetensors");
  return [flags] { return embed(*flags); };
}

}  // namespace twinlens::program
