#include "examples/twinlens/load.h"

#include <algorithm>
#include <cerrno>
#include <cmath>
#include <cstdio>
#include <cstring>
#include <filesystem>
#include <map>
#include <numeric>

#include "examples/twinlens/number_checks.h"

#include "twinlens/clip/picture_stream.h"
#include "twinlens/clip/precision.h"
#include "twinlens/clip/text_encoding.h"
#include "twinlens/core/ops.h"
#include "twinlens/kernels/error.h"

namespace twinlens::program {

LoadedModel load(const std::string& model, const std::string& device, const std::string& precision) {
  const Device where = parse_device(device);
  if (where.is_cuda() && cuda_device_count() <= where.index) throw DeviceError(cuda_unavailable_reason());
  LoadedModel loaded;
  const ModelSource source = find_source(model);
  if (!source.guess.empty()) std::fprintf(stderr, "note: %s\n", source.guess.c_str());
  loaded.clip = load_model(source);
  move_to(*loaded.clip, where);
  if (compute_of_precision(precision, where) == Compute::bf16) round_weights(collect(*loaded.clip));
  loaded.tokenizer = tokenizer_of(loaded.clip->config, model);
  return loaded;
}

void PictureFlags::add_to(CLI::App& app, bool decoding, bool device) {
  app.add_option("--max-image-pixels", max_image_pixels, "Pictures whose header promises more are refused before decoding; 0: no limit")
      ->capture_default_str()
      ->check(at_least(0));
  if (device) app.add_flag("--device-transforms", device_transforms, "On a card: crop and resize there (the same bytes)");
  if (!decoding) return;
  app.add_flag("--exif-orientation", exif_orientation, "Turn pictures upright as their EXIF tag says; CLIP models are trained without");
  app.add_flag("--fast-decode", fast_decode,
               "Decode large JPEGs at 1/2, 1/4 or 1/8, as long as no side gets smaller than the model's input; pixels differ a little");
}

void PictureFlags::apply_to(EmbedOptions& options) const {
  options.max_image_pixels = max_image_pixels;
  options.exif_orientation = exif_orientation;
  options.fast_decode = fast_decode;
  options.device_transforms = device_transforms;
}

EmbeddedFiles embed_usable_files(const Clip& model, const std::vector<std::string>& paths, const EmbedOptions& options) {
  EmbeddedFiles out;
  std::vector<Tensor> parts;
  std::vector<std::string> bytes, names;
  std::string first_reason;
  bool is_one_file = paths.size() == 1;  // then what is wrong with it is the error
  const auto skip = [&](const std::string& name, const std::string& reason) {
    if (++out.skipped == 1) first_reason = reason;
    if (!is_one_file) std::fprintf(stderr, "skipped %s: %s\n", name.c_str(), reason.c_str());
  };
  const auto embed_batch = [&] {
    const LoadedPictures pictures = load_pictures(model, bytes, names, options);
    for (const SkippedSample& s : pictures.skipped) skip(s.key, s.reason);
    for (const std::int64_t k : pictures.kept) out.names.push_back(names[static_cast<std::size_t>(k)]);
    if (!pictures.kept.empty()) parts.push_back(embed_pictures(model, pictures.pixels, options));
    bytes.clear();
    names.clear();
  };
  for (const std::string& path : paths) {
    PictureStream pictures({path});
    EncodedPicture picture;
    const auto has_next = [&] {
      try {
        return pictures.next(picture);
      } catch (const FileError& e) {
        skip(path, e.what());
        return false;
      }
    };
    while (has_next()) {
      is_one_file = is_one_file && picture.named;
      if (!picture.damage.empty()) {
        skip(picture.name, picture.damage);
        continue;
      }
      bytes.push_back(std::move(picture.bytes));
      names.push_back(picture.name);
      if (bytes.size() == static_cast<std::size_t>(options.batch_size)) embed_batch();
    }
  }
  if (!bytes.empty()) embed_batch();
  const std::size_t count = out.names.size() + static_cast<std::size_t>(out.skipped);
  if (count == 0) throw FileError("no picture in it; " + paths.front() + "; give pictures, or folders or tars that hold some");
  if (parts.empty()) {
    throw FileError(is_one_file ? first_reason : "none of " + std::to_string(count) + " pictures is usable; first: " + first_reason);
  }
  if (out.skipped > 0) std::fprintf(stderr, "note: %lld of %zu pictures were skipped\n", static_cast<long long>(out.skipped), count);
  out.features = concat(parts, 0);
  return out;
}

std::vector<std::size_t> best_first(const std::vector<double>& scores, std::size_t count) {
  std::vector<std::size_t> order(scores.size());
  std::iota(order.begin(), order.end(), 0);
  std::stable_sort(order.begin(), order.end(), [&](std::size_t a, std::size_t b) { return scores[a] > scores[b]; });
  order.resize(std::min(order.size(), count));
  return order;
}

EmbedOptions embed_options(int batch_size, const std::string& precision, const std::string& device, std::int64_t max_image_pixels) {
  EmbedOptions options;
  options.batch_size = batch_size;
  options.max_image_pixels = max_image_pixels;
  options.context.compute = compute_of_precision(precision, parse_device(device));
  return options;
}

std::ifstream open_lines(const std::string& path) {
  std::ifstream file(path);
  if (!file) throw FileError(std::string("cannot be read: ") + std::strerror(errno) + "; " + path + "; check the path and its permissions");
  std::error_code ignored;
  if (std::filesystem::is_directory(path, ignored)) throw FileError("cannot be read: it is a folder; " + path + "; give a file of lines");
  return file;
}

namespace {

bool is_blank(const std::string& line) { return line.find_first_not_of(" \t") == std::string::npos; }

// Of a file that has one at least that is not blank.
std::vector<std::string> all_lines(const std::string& path) {
  std::ifstream file = open_lines(path);
  std::vector<std::string> lines;
  std::string line;
  for (std::int64_t number = 0; next_list_line(file, path, number, line);) lines.push_back(line);
  if (std::all_of(lines.begin(), lines.end(), is_blank)) throw ConfigError("file has no lines; " + path + "; write one entry a line");
  return lines;
}

}  // namespace

std::vector<std::string> read_lines(const std::string& path) {
  std::vector<std::string> lines = all_lines(path);
  lines.erase(std::remove_if(lines.begin(), lines.end(), is_blank), lines.end());
  return lines;
}

ClassNames read_classes(const std::string& path) {
  ClassNames classes;
  std::map<std::string, std::int64_t> known;
  for (std::string& name : all_lines(path)) {
    if (is_blank(name)) {
      classes.of_line.push_back(-1);
      continue;
    }
    const auto [it, is_new] = known.try_emplace(name, static_cast<std::int64_t>(classes.names.size()));
    classes.of_line.push_back(it->second);
    if (is_new) {
      classes.names.push_back(std::move(name));
    } else {
      std::fprintf(stderr, "note: class '%s' stands more than once and counts once; %s\n", name.c_str(), path.c_str());
    }
  }
  return classes;
}

nlohmann::ordered_json results_json(const nlohmann::ordered_json& results, std::int64_t skipped) {
  nlohmann::ordered_json out{{"results", results}};
  if (skipped > 0) out["skipped"] = skipped;
  return out;
}

double logit_scale_of(const LoadedModel& model) {
  const double scale = model.clip->logit_scale_value();
  if (!std::isfinite(scale)) {
    throw NumericError("logit scale: exp(" + std::to_string(model.clip->logit_scale.value.item()) +
                       ") of the weights is no finite number, so there are no probabilities; --model; use another checkpoint");
  }
  return scale;
}

std::vector<double> probabilities(const std::vector<double>& logits) {
  std::vector<double> p(logits.size());
  const double top = logits.empty() ? 0.0 : *std::max_element(logits.begin(), logits.end());
  double total = 0.0;
  for (std::size_t i = 0; i < p.size(); ++i) total += p[i] = std::exp(logits[i] - top);
  for (double& x : p) x /= total;
  return p;
}

}  // namespace twinlens::program
