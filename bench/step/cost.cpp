#include "bench/step/cost.h"

#include <map>

#include "twinlens/clip/model_cost.h"

namespace twinlens::bench {
namespace {

// Rows of a tower: sequences, all tokens, and pairs of a query and a key that meet.
struct Load {
  double sequences = 0.0, tokens = 0.0, meetings = 0.0;
};

// Multiply-adds of the blocks, forward.
double blocks(const Load& l, double width, int layers, double hidden, bool pruned) {
  const double whole = l.tokens * width * (4.0 * width + 2.0 * hidden) + 2.0 * l.meetings * width;
  // Keys and values of all rows; query, projection and MLP of one row a sequence.
  const double last = l.tokens * width * 2.0 * width + l.sequences * width * (2.0 * width + 2.0 * hidden) + 2.0 * l.tokens * width;
  return whole * (layers - 1) + (pruned ? last : whole);
}

double image_macs(const ModelConfig& c, double pairs, bool pruned) {
  if (c.vision.is_resnet()) return 3.0 * pairs * model_cost(c).image_gflops * 1e9 / 2.0;
  const double grid = static_cast<double>(c.vision.grid()) * c.vision.grid(), t = grid + 1.0, w = c.vision.width;
  const double patches = pairs * grid * 3.0 * c.vision.patch_size * c.vision.patch_size * w;
  const Load load{pairs, pairs * t, pairs * t * t};
  // The pixels want no gradient: the stem has two products, everything else three.
  return 2.0 * patches + 3.0 * (blocks(load, w, c.vision.layers[0], w * c.vision.mlp_ratio, pruned) + pairs * w * c.embed_dim);
}

double text_macs(const ModelConfig& c, const PairBatch& batch, const StepOptions& options, bool pruned) {
  std::map<std::int64_t, double> lengths;  // of what is encoded, by caption
  for (std::size_t i = 0; i < batch.captions.size(); ++i) {
    const auto key = options.encode_equal_once ? batch.caption_ids[i] : static_cast<std::int64_t>(i);
    lengths[key] = options.pack_captions ? static_cast<double>(batch.captions[i].size()) : c.text.context_length;
  }
  Load load;
  for (const auto& [key, t] : lengths) {
    load.sequences += 1.0;
    load.tokens += t;
    load.meetings += t * (t + 1.0) / 2.0;
  }
  const double w = c.text.width;
  return 3.0 * (blocks(load, w, c.text.layers, w * c.text.mlp_ratio, pruned && options.pack_captions) + load.sequences * w * c.embed_dim);
}

}  // namespace

StepCost step_cost(const ModelConfig& config, const PairBatch& batch, const StepOptions& options, bool pruned) {
  const ModelCost model = model_cost(config);
  const auto pairs = static_cast<double>(batch.captions.size());
  const double loss = 3.0 * pairs * pairs * config.embed_dim;  // logits and their two gradients
  StepCost cost;
  cost.nominal = 3.0 * pairs * (model.image_gflops + model.text_gflops) * 1e9 + 2.0 * loss;
  cost.remaining = 2.0 * (image_macs(config, pairs, pruned) + text_macs(config, batch, options, pruned) + loss);
  return cost;
}

}  // namespace twinlens::bench
