#pragma once
// What the subcommands share: a model with its tokenizer, and JSON of ranked results.

#include <CLI/CLI.hpp>
#include <fstream>
#include <memory>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "twinlens/clip/evaluation.h"
#include "twinlens/clip/pretrained.h"

namespace twinlens::program {

struct LoadedModel {
  std::unique_ptr<Clip> clip;
  std::shared_ptr<const Tokenizer> tokenizer;
};

// For use in this precision. Throws when `model` has no weights or `device` cannot be used.
LoadedModel load(const std::string& model, const std::string& device, const std::string& precision = "fp32");

EmbedOptions embed_options(int batch_size, const std::string& precision, const std::string& device,
                           std::int64_t max_image_pixels = 25'000'000);

// A text file to be read line by line. Throws FileError for one that cannot be opened, and for a folder.
std::ifstream open_lines(const std::string& path);

// The lines of a text file, empty ones left out. Throws FileError, and ConfigError when none is left.
std::vector<std::string> read_lines(const std::string& path);
// The same of class names. One that stands twice, as some do in the usual list of ImageNet, cannot be told from itself: it counts once,
// with a note on stderr.
struct ClassNames {
  std::vector<std::string> names;
  std::vector<std::int64_t> of_line;  // the class of each line, -1: none; for labels that are numbers of lines, from 0
};
ClassNames read_classes(const std::string& path);

// The flags of every subcommand that reads pictures; without those that say how they are decoded where something else says it.
struct PictureFlags {
  std::int64_t max_image_pixels = 25'000'000;
  bool exif_orientation = false, fast_decode = false, device_transforms = false;
  // Without the flags of decoding, or of a card, for commands that have no such thing.
  void add_to(CLI::App& app, bool decoding = true, bool device = true);
  void apply_to(EmbedOptions& options) const;
};

// Features (N, E) of pictures, each with its name, from files, folders and tars (PictureStream). One that cannot be used is left out, with
// a line on stderr that says why. Throws FileError when none is left.
struct EmbeddedFiles {
  Tensor features;
  std::vector<std::string> names;
  std::int64_t skipped = 0;
};
EmbeddedFiles embed_usable_files(const Clip& model, const std::vector<std::string>& paths, const EmbedOptions& options);

// What scores are multiplied by. Throws NumericError where the weights have no number for it.
double logit_scale_of(const LoadedModel& model);

// Indices of the `count` largest scores, the largest first, equal ones in order.
std::vector<std::size_t> best_first(const std::vector<double>& scores, std::size_t count);

// {"results": [...]}, and "skipped", how many pictures were left out, where any was.
nlohmann::ordered_json results_json(const nlohmann::ordered_json& results, std::int64_t skipped);

// softmax of logits
std::vector<double> probabilities(const std::vector<double>& logits);

}  // namespace twinlens::program
