#include "bench/step/batch.h"

#include <algorithm>
#include <cmath>
#include <fstream>
#include <map>
#include <random>

#include "twinlens/clip/embedding.h"
#include "twinlens/core/safetensors.h"
#include "twinlens/kernels/error.h"

namespace twinlens::bench {
namespace {

using Caption = std::vector<std::int32_t>;
using Random = std::mt19937_64;

double uniform(Random& random) { return static_cast<double>(random() >> 11) * 0x1.0p-53; }
double normal(Random& random) {
  return std::sqrt(-2.0 * std::log(1.0 - uniform(random))) * std::cos(2.0 * std::acos(-1.0) * uniform(random));
}

// Of 1000 emoji names of the built-in data, how many have 3, 4, ... tokens with start and end.
constexpr int kEmojiLengths[] = {246, 304, 226, 108, 62, 19, 19, 5, 9, 1, 1};

std::int64_t length_of(const std::string& kind, std::int64_t context, Random& random) {
  if (kind == "dense") return context;
  double length = 3.0;
  if (kind == "emoji") {
    double left = uniform(random) * 1000.0;
    for (const int share : kEmojiLengths) {
      left -= share;
      if (left < 0.0) break;
      length += 1.0;
    }
  } else {
    length = std::exp(2.85 + 0.55 * normal(random));  // cut at the context, a mean of 20
  }
  return std::clamp<std::int64_t>(std::llround(length), 3, context);
}

std::vector<Caption> drawn(const ModelConfig& config, std::int64_t pairs, const std::string& kind, Random& random) {
  const auto tokenizer = tokenizer_of(config);
  const auto words = static_cast<double>(tokenizer->vocab_size() - 2);
  std::vector<Caption> captions;
  for (std::int64_t i = 0; i < pairs; ++i) {
    Caption caption{tokenizer->start_id()};
    const std::int64_t length = length_of(kind, config.text.context_length, random);
    // Low ids stand for frequent tokens, as in text.
    while (static_cast<std::int64_t>(caption.size()) < length - 1) {
      caption.push_back(static_cast<std::int32_t>(words * std::pow(uniform(random), 3.0)));
    }
    caption.push_back(tokenizer->end_id());
    captions.push_back(std::move(caption));
  }
  return captions;
}

std::vector<Caption> read(const ModelConfig& config, std::int64_t pairs, const std::string& path, Random& random) {
  std::ifstream file(path);
  std::vector<std::string> lines;
  for (std::string line; std::getline(file, line);) {
    if (!line.empty()) lines.push_back(line);
  }
  if (lines.empty()) throw FileError("captions: no line could be read; " + path + "; give a text file, emoji, web or dense");
  std::shuffle(lines.begin(), lines.end(), random);
  const auto tokenizer = tokenizer_of(config);
  std::vector<Caption> captions;
  for (std::int64_t i = 0; i < pairs; ++i) {
    const std::string& line = lines[static_cast<std::size_t>(i) % lines.size()];
    captions.push_back(tokenizer->tokenize(line, config.text.context_length).ids);
  }
  return captions;
}

Tensor slopes_of_colour(std::int64_t pairs, std::int64_t side, Random& random) {
  Tensor pixels = empty({pairs, side, side, 3}, DType::u8);
  auto* at = pixels.data<std::uint8_t>();
  for (std::int64_t i = 0; i < pairs * 3; ++i) {
    const double level = 255.0 * uniform(random), across = 100.0 * normal(random), down = 100.0 * normal(random);
    for (std::int64_t p = 0; p < side * side; ++p) {
      const double x = static_cast<double>(p % side) / static_cast<double>(side) - 0.5;
      const double y = static_cast<double>(p / side) / static_cast<double>(side) - 0.5;
      const double value = level + across * x + down * y + 20.0 * (uniform(random) - 0.5);
      at[((i / 3) * side * side + p) * 3 + i % 3] = static_cast<std::uint8_t>(std::clamp(value, 0.0, 255.0));
    }
  }
  return pixels;
}

}  // namespace

PairBatch make_batch(const ModelConfig& config, std::int64_t pairs, const std::string& captions, std::uint64_t seed) {
  Random random(seed);
  PairBatch batch;
  const bool built_in = captions == "emoji" || captions == "web" || captions == "dense";
  batch.captions = built_in ? drawn(config, pairs, captions, random) : read(config, pairs, captions, random);
  std::map<Caption, std::int64_t> ids;
  for (const Caption& caption : batch.captions) {
    batch.caption_ids.push_back(ids.try_emplace(caption, static_cast<std::int64_t>(ids.size())).first->second);
  }
  batch.pixels = slopes_of_colour(pairs, config.vision.image_size, random);
  return batch;
}

void write_batch(const std::string& path, const PairBatch& batch, int context_length) {
  std::vector<std::int64_t> tokens, lengths;
  for (const Caption& caption : batch.captions) {
    tokens.insert(tokens.end(), caption.begin(), caption.end());
    tokens.resize(tokens.size() + static_cast<std::size_t>(context_length) - caption.size());
    lengths.push_back(static_cast<std::int64_t>(caption.size()));
  }
  const auto pairs = static_cast<std::int64_t>(lengths.size());
  write_safetensors(
      path,
      {{"pixels", batch.pixels}, {"tokens", from_vector(tokens, {pairs, context_length})}, {"lengths", from_vector(lengths, {pairs})}});
}

}  // namespace twinlens::bench
