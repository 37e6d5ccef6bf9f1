#pragma once
// What tests of loaders share: small options, a tokenizer, and batches compared.

#include <algorithm>
#include <catch2/catch.hpp>
#include <cstdint>
#include <memory>

#include "twinlens/clip/loader.h"

namespace twinlens::test {

inline LoaderOptions options_of(std::int64_t batch_size, int workers) {
  LoaderOptions o;
  o.batch_size = batch_size;
  o.workers = workers;
  o.image_size = 16;
  o.context_length = 12;
  o.seed = 3;
  o.augment.flip_probability = 0.5;
  return o;
}

inline std::shared_ptr<const Tokenizer> tokenizer() {
  static const auto made = clip_tokenizer({.vocab_size = 1000});
  return made;
}

inline void check_equal(const LoadedBatch& a, const LoadedBatch& b) {
  INFO("epoch " << a.epoch << " batch " << a.index);
  CHECK(a.epoch == b.epoch);
  CHECK(a.index == b.index);
  CHECK(a.last == b.last);
  CHECK(a.samples == b.samples);
  CHECK(a.captions == b.captions);
  CHECK(a.caption_ids == b.caption_ids);
  CHECK(std::equal(a.pixels.data<std::uint8_t>(), a.pixels.data<std::uint8_t>() + a.pixels.count(), b.pixels.data<std::uint8_t>()));
}

}  // namespace twinlens::test
