#pragma once
// What tests of memory, planned on the CPU and predicted on a card, share.

#include <catch2/catch.hpp>
#include <string>

#include "twinlens/clip/config.h"
#include "twinlens/clip/train_step.h"

namespace twinlens::test {

// n gray pictures with different captions of four tokens, for a vocabulary of 1000.
inline PairBatch gray_pairs(const ModelConfig& config, std::int64_t n) {
  PairBatch batch;
  const std::int64_t s = config.vision.image_size;
  batch.pixels = full({n, s, s, 3}, 100, DType::u8);
  for (std::int64_t i = 0; i < n; ++i) {
    batch.captions.push_back({998, static_cast<std::int32_t>(i), 7, 999});
    batch.caption_ids.push_back(i);
  }
  return batch;
}

// By how many percent of what the first step took a run's log says that the prediction was off.
inline double predicted_off_by(const std::string& log) {
  const std::string before = "were predicted (";
  const std::size_t at = log.find(before);
  REQUIRE(at != std::string::npos);
  return std::stod(log.substr(at + before.size()));
}

}  // namespace twinlens::test
