#pragma once
// The symmetric InfoNCE loss of CLIP (Radford et al. 2021, arXiv:2103.00020, figure 3) and SigLIP's sigmoid loss (Zhai et al. 2023,
// arXiv:2303.15343) over the features of all ranks.

#include "twinlens/nn/communicator.h"

namespace twinlens {

// What captions that stand several times in a batch are to each other.
enum class EqualCaptions : std::uint8_t {
  negatives,  // as open_clip: only the own pair is right
  positives,  // a pair with an equal caption is right too: it is left out of the denominators, so it is never pushed away.
              // (Uniform soft targets over equal captions would change nothing: equal texts have equal features, and then the loss
              // and its gradients are those of `negatives`; docs/decisions/0003-equal-captions.md.)
};

enum class LossKind : std::uint8_t { softmax, sigmoid };

struct ClipLossInputs {
  Tensor image;         // (n, d) unit features of this rank
  Tensor text;          // (n, d)
  Tensor logit_scale;   // rank 0, the logarithm
  Tensor caption_ids;   // (n) i64; needed for positives
  Tensor logit_bias{};  // rank 0; needed for the sigmoid loss
};

struct LossOptions {
  EqualCaptions equal_captions = EqualCaptions::negatives;
  LossKind kind = LossKind::softmax;
  bool stream = true;  // tiles of logits (info_nce, sigmoid_loss); off: the textbook form with all (n, N) logits in memory
};

// Mean over this rank's rows; the softmax loss is the mean of image-to-text and text-to-image. The mean over ranks is the loss of the whole
// batch, and that of the gradients its gradient, if every rank calls backward with the same upstream gradient.
Tensor clip_loss(const ClipLossInputs& in, const LossOptions& options, Communicator& communicator);

inline Tensor clip_loss(const ClipLossInputs& in, EqualCaptions equal, Communicator& communicator) {
  return clip_loss(in, LossOptions{equal, LossKind::softmax, true}, communicator);
}

// What label smoothing (Szegedy et al. 2016, arXiv:1512.00567) adds to the loss, to be multiplied by its share. Targets of
// (1 - share) on the own pair and share / N on every pair of the batch give
//   lse_i - (1 - share) x_ii - share mean_j x_ij = (lse_i - x_ii) + share (x_ii - mean_j x_ij)
// in both directions, and the mean of all logits is scale <mean image, mean text>: nothing of the size N x N is needed.
Tensor label_smoothing_term(const ClipLossInputs& in, Communicator& communicator);

}  // namespace twinlens
