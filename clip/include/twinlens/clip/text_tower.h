#pragma once
// CLIP's text tower (OpenAI clip/model.py): token and position embeddings, causal pre-norm Transformer, final norm, the end-of-text token
// times text_projection (W, E).
//
// Captions come packed: tokens after end-of-text cannot influence a causal tower that is read there, so they are not computed. A dense
// batch (every caption padded to the context length) gives the same numbers and exists as the oracle.

#include <cstdint>
#include <vector>

#include "twinlens/clip/config.h"
#include "twinlens/nn/init.h"
#include "twinlens/nn/transformer.h"

namespace twinlens {

// S captions back to back.
struct TokenBatch {
  Tensor ids;        // (N) i64
  Tensor positions;  // (N) i64, place in the caption
  SequenceOffsets offsets;
  Tensor last;         // (S) i64, row of each caption's end-of-text token
  bool packed = true;  // every caption ends with its end-of-text token
  TokenBatch to(Device device) const;
  std::int64_t captions() const { return last.count(); }
};

// Each caption is [start, ..., end-of-text], not longer than the context. `pad_to` > 0 pads every caption with 0 to that length.
TokenBatch pack_captions(const std::vector<std::vector<std::int32_t>>& captions, int pad_to = 0);

struct TextTower {
  Embedding token_embedding;       // (vocabulary, W)
  Parameter positional_embedding;  // (context, W)
  Transformer transformer;
  LayerNorm ln_final;
  Parameter text_projection;  // (W, E)

  TextTower() = default;
  explicit TextTower(const ModelConfig& config);
  void initialize(const Initializer& init);
  Tensor operator()(const TokenBatch& captions, const Context& context) const;  // (S, E) f32, not normalised
  void visit(Visitor& v);
};

}  // namespace twinlens
