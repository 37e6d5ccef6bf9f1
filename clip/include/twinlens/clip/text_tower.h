#pragma once
// CLIP's text tower (OpenAI clip/model.py): token and position embeddings, causal pre-norm Transformer, final norm, the end-of-text token
// times text_projection (W, E).
//
// Captions come packed: tokens after end-of-text cannot influence a causal tower that is read there, so they are not computed. A dense
// batch (every caption padded to the context length) gives the same numbers and exists as the oracle.
//
// The variants that open_clip has: without the causal mask, read at the first or last position of the padded row, or at the first eos_id
// (SigLIP, CLIPA); they need every caption padded to the context length. The projection may have a bias and is then a Linear.

#include <cstdint>
#include <optional>
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
  Tensor last;         // (S) i64, row of each caption that is read: its end-of-text token, mostly
  bool packed = true;  // every caption ends with the row that is read
  TokenBatch to(Device device) const;
  std::int64_t captions() const { return last.count(); }
};

// Each caption is [start, ..., end-of-text], not longer than the context. `pad_to` > 0 pads every caption with 0 to that length.
TokenBatch pack_captions(const std::vector<std::vector<std::int32_t>>& captions, int pad_to = 0);

// Drops what stands behind the token that the tower of `config` reads, where later tokens do not reach it: a caption that spells an end of
// text is read at its first one, as open_clip's argmax does. With pool_type eos, one without any is read at the first of the padding if
// that is the end of text, else at its first token, as Hugging Face and open_clip do. `pack`: they will not be padded.
void cut_behind_read(const TextConfig& config, std::vector<std::vector<std::int32_t>>& captions, bool pack);

// As the tower of `config` needs them, cut_behind_read(): packed where it reads the end of text and nothing after it (and `pack` is on),
// else padded with config.pad_id to the context length. Reads the row that config.pool_type names; captions end with their end of text.
TokenBatch batch_captions(const TextConfig& config, const std::vector<std::vector<std::int32_t>>& captions, bool pack = true);

struct TextTower {
  Embedding token_embedding;       // (vocabulary, W)
  Parameter positional_embedding;  // (context, W)
  Transformer transformer;
  LayerNorm ln_final;
  Parameter text_projection;                     // (W, E)
  std::optional<Linear> text_projection_linear;  // instead, with a bias; weight (E, W)
  bool causal = true;
  bool pooled_last_block = true;  // compute only the row that is read in the last block (equal numbers)

  TextTower() = default;
  explicit TextTower(const ModelConfig& config);
  void initialize(const Initializer& init);
  Tensor operator()(const TokenBatch& captions, const Context& context) const;  // (S, E) f32, not normalised
  void visit(Visitor& v);
};

}  // namespace twinlens
