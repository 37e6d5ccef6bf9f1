#pragma once
// Retrieval and classification metrics, all rates fractions in [0, 1]. Similarities are computed in chunks: memory O(N + M), never N x M.

#include <cstdint>
#include <string>
#include <vector>

#include "twinlens/core/tensor.h"

namespace twinlens {

struct RecallAtK {
  double r1 = 0.0, r5 = 0.0, r10 = 0.0;
  double mean_rank = 0.0, median_rank = 0.0;  // of the best correct item, from 1 (open_clip: floor of the median, plus 1)
};

struct Retrieval {
  RecallAtK image_to_text, text_to_image;
  std::int64_t images = 0, texts = 0;  // queries and candidates of each direction; queries only when some were left out
};

// images (N, d), texts (M, d): unit features, f32 on the CPU; texts are distinct captions; texts_of[i] are the texts that image i shows, at
// least one. A query is a hit at k when any correct item is among the first k; ties go to the lower index. Texts that no image shows are
// candidates, not queries. `asked` (a flag per text, empty for all) leaves queries out, images whose first text it is too; candidates stay
// all.
Retrieval retrieval_metrics(const Tensor& images, const Tensor& texts, const std::vector<std::vector<std::int64_t>>& texts_of,
                            const std::vector<bool>& asked = {});
// One text an image.
Retrieval retrieval_metrics(const Tensor& images, const Tensor& texts, const std::vector<std::int64_t>& caption_of,
                            const std::vector<bool>& asked = {});

struct Classification {
  double top1 = 0.0, top5 = 0.0, mean_per_class_recall = 0.0;
  std::int64_t images = 0, classes = 0;
};

// images (N, d), classes (C, d) unit features; label_of[i] in [0, C). top5 is 1 of five classes or fewer.
// `asked` (a flag per image, empty for all) leaves images out. Throws NumericError for features that are not finite.
Classification classification_metrics(const Tensor& images, const Tensor& classes, const std::vector<std::int64_t>& label_of,
                                      const std::vector<bool>& asked = {});

// The k best rows of `items` (M, d) for each row of `queries` (N, d), best first, ties by lower index.
std::vector<std::vector<std::int64_t>> nearest(const Tensor& queries, const Tensor& items, int k);

}  // namespace twinlens
