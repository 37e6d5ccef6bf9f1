#pragma once
// A batch to measure with: pixels and captions that look to the library as real ones do.

#include <string>

#include "twinlens/clip/train_step.h"

namespace twinlens::bench {

// Captions are
//   emoji   lengths of the built-in data's names (mean 4.7 tokens with start and end)
//   web     a log-normal with a mean of 20 tokens, as alt texts have
//   dense   every caption fills the context
//   FILE    the lines of a text file, tokenised, in an order drawn from the seed
// Pixels are slopes of colour with noise. Throws FileError for a file that cannot be read or has no line.
PairBatch make_batch(const ModelConfig& config, std::int64_t pairs, const std::string& captions, std::uint64_t seed);

// Writes pixels (B, S, S, 3) u8, tokens (B, context) i64 padded with 0 and lengths (B) i64 as safetensors, for another program.
void write_batch(const std::string& path, const PairBatch& batch, int context_length);

}  // namespace twinlens::bench
