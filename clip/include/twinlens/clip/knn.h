#pragma once
// k-nearest-neighbour classification on frozen unit features, by cosine.

#include <cstdint>
#include <vector>

#include "twinlens/clip/metrics.h"

namespace twinlens {

// Each row of `queries` (N, E) is given the labels of its k nearest rows of `items` (M, E), a vote each; of labels with as many votes the
// one with the larger sum of cosines comes first, then the lower label. `label_of` the queries are the truth; labels are in [0, classes).
Classification knn_metrics(const Tensor& items, const std::vector<std::int64_t>& item_labels, const Tensor& queries,
                           const std::vector<std::int64_t>& label_of, std::int64_t classes, int k);

}  // namespace twinlens
