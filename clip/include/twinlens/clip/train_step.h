#pragma once
// Forward and backward of one batch. Gradients are added to what is there: clear them first (FlatParameters::zero_gradients). No optimizer
// runs here.
//
// A batch larger than `max_chunk` is done by cached features (Gao et al. 2021, arXiv:2101.06983): encode all chunks without recording, take
// the loss on all features, encode again chunk by chunk with recording and feed each its slice of the feature gradient. The gradient is
// that of the full batch; random numbers repeat because they are functions of sample ids. With BatchNorm in training mode statistics are
// per chunk and the running ones move in the first pass only.

#include <cstdint>
#include <vector>

#include "twinlens/clip/loss.h"
#include "twinlens/clip/model.h"
#include "twinlens/nn/flat_parameters.h"

namespace twinlens {

struct PairBatch {
  Tensor pixels;                                    // (B, S, S, 3) u8
  std::vector<std::vector<std::int32_t>> captions;  // B token lists, [start, ..., end]
  std::vector<std::int64_t> caption_ids;            // B; the same id for captions that count as equal: one text, or one class
  std::vector<std::int64_t> samples{};              // B global sample ids, of which random numbers are functions; none: the rows' numbers
};

struct StepOptions {
  EqualCaptions equal_captions = EqualCaptions::negatives;  // open_clip's loss; the training program's default is positives
  std::int64_t max_chunk = 0;                               // pairs encoded at once; 0: all
  LossKind loss = LossKind::softmax;
  bool stream_loss = true;           // tiles of logits instead of all of them
  bool encode_equal_once = true;     // a caption that stands several times is encoded once
  double loss_scale = 1.0;           // gradients come multiplied by it (f16)
  Tensor card_loss_scale{};          // instead, where a card keeps it: one f32
  double label_smoothing = 0.0;      // share of every target spread over the batch
  std::uint64_t seed = 0, step = 0;  // of the patches that are seen, with a model's patch dropout
  bool pack_captions = true;         // no work on padding; off: every caption padded to the context length
  bool row_buckets = false;          // captions filled up, so that batches have few sizes (docs/decisions/0018-graphs.md)
  bool backward_if_finite = false;   // a loss that is not finite has no backward pass: for updates inside of it (AdamWInBackward)
};

// How the features of a step lie, by the mean cosine: of own pairs, and of different rows of one tower, where 1 means that the tower gives
// everything the same feature (collapse). Of this rank's rows.
struct FeatureFigures {
  double own_pairs = 0.0, images = 0.0, texts = 0.0;
};

// Adds the gradient of the mean loss over all ranks' rows (before averaging over ranks) to the parameters and returns this rank's loss.
// Figures are computed when asked for (a pass over the features, and a read from the device). Throws ConfigError for options out of range.
double forward_backward(Clip& model, const PairBatch& batch, const StepOptions& options, const Context& context, Communicator& communicator,
                        FeatureFigures* figures = nullptr);

// The same without waiting for a card, which has the work queued: the loss, of rank 0, lies there.
Tensor queue_forward_backward(Clip& model, const PairBatch& batch, const StepOptions& options, const Context& context,
                              Communicator& communicator, FeatureFigures* figures = nullptr);

// After forward_backward on every rank: the gradients of the whole batch, the same bits on all ranks.
void average_gradients(FlatParameters& parameters, Communicator& communicator);

// The loss alone, nothing recorded. Evaluation mode is the caller's: context.training false.
double evaluate_loss(const Clip& model, const PairBatch& batch, const StepOptions& options, const Context& context,
                     Communicator& communicator);

}  // namespace twinlens
