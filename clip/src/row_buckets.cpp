#include "clip/src/row_buckets.h"

#include <algorithm>

namespace twinlens {
namespace {

constexpr std::int64_t kRowSteps = 64, kCaptionSteps = 16;

std::int64_t in_steps(std::int64_t n, std::int64_t step) { return (n + step - 1) / step; }
std::int64_t up_to(std::int64_t n, std::int64_t step) { return in_steps(n, step) * step; }

}  // namespace

RowBucket padded_bucket(std::int64_t pairs, std::int64_t captions) {
  return {std::min(pairs, up_to(captions, in_steps(pairs, kCaptionSteps))), 0};
}

RowBucket packed_bucket(std::int64_t pairs, std::int64_t context, std::int64_t captions, std::int64_t rows) {
  const std::int64_t step = in_steps(pairs * context, kRowSteps);
  // With one of the context's length, so many hold up to a step of rows more than the one each that they must have.
  const std::int64_t holders = 1 + in_steps(step, std::max<std::int64_t>(1, context - 1));
  const std::int64_t all = padded_bucket(pairs, captions).captions + holders;
  return {all, up_to(rows + context + (all - captions - 1), step)};
}

void fill_bucket(std::vector<std::vector<std::int32_t>>& captions, std::int64_t pairs, std::int64_t context, bool packed) {
  const auto count = [&] { return static_cast<std::int64_t>(captions.size()); };
  // Made of a real one's tokens: what they come to is finite where that of the batch is.
  const std::vector<std::int32_t> tokens = captions.front();
  const auto add = [&](std::int64_t length) {
    std::vector<std::int32_t>& caption = captions.emplace_back(static_cast<std::size_t>(length));
    const std::size_t inner = std::max<std::size_t>(1, tokens.size() - 1);  // (the last one ends a caption: here, too)
    for (std::size_t i = 0; i < caption.size(); ++i) caption[i] = tokens[i % inner];
    caption.back() = tokens.back();
  };
  if (!packed) {
    for (const std::int64_t all = padded_bucket(pairs, count()).captions; count() < all;) add(1);
    return;
  }
  std::int64_t rows = 0;
  for (const auto& caption : captions) rows += static_cast<std::int64_t>(caption.size());
  const RowBucket bucket = packed_bucket(pairs, context, count(), rows);
  std::int64_t left = bucket.rows - rows;
  const auto take = [&](std::int64_t length) {
    add(length);
    left -= length;
  };
  take(context);
  while (count() < bucket.captions) take(in_steps(left, bucket.captions - count()));
}

}  // namespace twinlens
