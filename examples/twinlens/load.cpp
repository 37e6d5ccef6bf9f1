#include "examples/twinlens/load.h"

#include <algorithm>
#include <cmath>
#include <fstream>

#include "twinlens/kernels/error.h"

namespace twinlens::program {

LoadedModel load(const std::string& model, const std::string& device) {
  const Device where = parse_device(device);
  if (where.is_cuda() && cuda_device_count() <= where.index) throw DeviceError(cuda_unavailable_reason());
  LoadedModel loaded;
  loaded.clip = load_model(model);
  move_to(*loaded.clip, where);
  loaded.tokenizer = tokenizer_of(loaded.clip->config);
  return loaded;
}

EmbedOptions embed_options(int batch_size, const std::string& precision, std::int64_t max_image_pixels) {
  EmbedOptions options;
  options.batch_size = batch_size;
  options.max_image_pixels = max_image_pixels;
  options.context.compute = precision == "amp_bf16" || precision == "bf16" ? Compute::bf16
                            : precision == "amp"                           ? Compute::f16
                            : precision == "tf32"                          ? Compute::tf32
                                                                           : Compute::fp32;
  return options;
}

std::vector<std::string> read_lines(const std::string& path) {
  std::ifstream file(path);
  if (!file) throw FileError("cannot be read; " + path + "; check the path and its permissions");
  std::vector<std::string> lines;
  std::string line;
  while (std::getline(file, line)) {
    if (!line.empty() && line.back() == '\r') line.pop_back();
    if (!line.empty()) lines.push_back(line);
  }
  if (lines.empty()) throw ConfigError("file has no lines; " + path + "; write one entry a line");
  return lines;
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
