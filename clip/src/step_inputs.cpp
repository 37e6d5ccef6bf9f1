#include "clip/src/step_inputs.h"

#include <unordered_map>

#include "clip/src/row_buckets.h"

#include "twinlens/core/check.h"

namespace twinlens {
namespace {

PatchSelection patches_of(const ModelConfig& config, const PairBatch& batch, std::int64_t begin, std::int64_t end,
                          const StepOptions& options) {
  std::vector<std::int64_t> samples;
  for (std::int64_t i = begin; i < end; ++i) samples.push_back(batch.samples.empty() ? i : batch.samples[static_cast<std::size_t>(i)]);
  return draw_patches(samples, config.vision.patches(), config.vision.patch_dropout, options.seed, options.step);
}

}  // namespace

StepInputs StepInputs::to(Device device) const {
  const auto moved = [&](const Tensor& x) { return x.defined() ? x.to(device) : x; };
  return {pixels.to(device), patches.to(device), captions.to(device), moved(caption_row), moved(caption_ids)};
}

StepInputs step_inputs(const Clip& model, const PairBatch& batch, std::int64_t begin, std::int64_t end, const StepOptions& options,
                       bool training) {
  const TextConfig& text = model.config.text;
  std::vector<std::vector<std::int32_t>> captions;
  std::vector<std::int64_t> rows, ids;
  std::unordered_map<std::int64_t, std::int64_t> row_of;
  for (std::int64_t i = begin; i < end; ++i) {
    const auto at = static_cast<std::size_t>(i);
    const auto next = static_cast<std::int64_t>(captions.size());
    ids.push_back(batch.caption_ids[at]);
    const auto [it, is_new] = row_of.try_emplace(options.encode_equal_once ? ids.back() : i, next);
    // (Ids that say which captions count as equal, as those of classes, may stand for several texts.)
    const bool is_equal = !is_new && captions[static_cast<std::size_t>(it->second)] == batch.captions[at];
    if (!is_equal) captions.push_back(batch.captions[at]);
    rows.push_back(is_equal ? it->second : next);
  }
  const std::int64_t n = end - begin;
  const bool packed = text.needs_no_padding() && options.pack_captions;
  cut_behind_read(text, captions, packed);
  if (options.row_buckets) fill_bucket(captions, n, text.context_length, packed);
  StepInputs in;
  in.pixels = batch.pixels.slice(0, begin, end);
  if (training && model.config.vision.patch_dropout > 0.0) in.patches = patches_of(model.config, batch, begin, end, options);
  // (What fills a bucket keeps its length, also where it holds no end of text.)
  in.captions = packed ? pack_captions(captions) : batch_captions(text, captions, false);
  // (In buckets also where it changes nothing: all batches have it.)
  if (static_cast<std::int64_t>(captions.size()) != n || options.row_buckets) in.caption_row = from_vector(rows, {n});
  if (n == static_cast<std::int64_t>(batch.caption_ids.size())) in.caption_ids = from_vector(ids, {n});
  return in;
}

std::int64_t pairs_of(const PairBatch& batch) {
  const std::int64_t n = batch.pixels.size(0);
  const auto size = static_cast<std::size_t>(n);
  check(
      n > 0 && batch.captions.size() == size && batch.caption_ids.size() == size && (batch.samples.empty() || batch.samples.size() == size),
      "train_step", "a batch needs one caption, one caption id and one sample id (or none at all) per picture", {{"pixels", batch.pixels}});
  return n;
}

}  // namespace twinlens
