#include "twinlens/clip/knn.h"

#include <map>

#include "twinlens/core/autograd.h"
#include "twinlens/core/check.h"
#include "twinlens/core/ops.h"

namespace twinlens {
namespace {

struct Votes {
  int count = 0;
  double cosines = 0.0;
  bool before(const Votes& other) const { return count != other.count ? count > other.count : cosines > other.cosines; }
};

double cosine(const float* a, const float* b, std::int64_t n) {
  double sum = 0.0;
  for (std::int64_t i = 0; i < n; ++i) sum += static_cast<double>(a[i]) * static_cast<double>(b[i]);
  return sum;
}

}  // namespace

Classification knn_metrics(const Tensor& items, const std::vector<std::int64_t>& item_labels, const Tensor& queries,
                           const std::vector<std::int64_t>& label_of, std::int64_t classes, int k) {
  check(items.size(0) == static_cast<std::int64_t>(item_labels.size()) && queries.size(0) == static_cast<std::int64_t>(label_of.size()) &&
            k > 0,
        "knn", "needs one label for each item and query, and k of at least 1", {{"items", items}, {"queries", queries}});
  const NoGrad guard;
  const Tensor a = dense(items), b = dense(queries);
  const std::int64_t e = a.size(1);
  // Scores of the classes: 1 for the first, less for each after it, so that classification_metrics ranks them.
  Tensor scores = zeros({b.size(0), classes});
  const auto neighbours = nearest(b, a, k);
  for (std::size_t i = 0; i < neighbours.size(); ++i) {
    std::map<std::int64_t, Votes> votes;
    for (const std::int64_t item : neighbours[i]) {
      Votes& v = votes[item_labels[static_cast<std::size_t>(item)]];
      ++v.count;
      v.cosines += cosine(a.data<float>() + item * e, b.data<float>() + static_cast<std::int64_t>(i) * e, e);
    }
    for (const auto& [label, mine] : votes) {
      std::int64_t better = 0;
      for (const auto& [other, theirs] : votes) better += theirs.before(mine) || (!mine.before(theirs) && other < label) ? 1 : 0;
      check(label >= 0 && label < classes, "knn", "labels must be in [0, classes)", {{"items", items}});
      scores.data<float>()[static_cast<std::int64_t>(i) * classes + label] = 1.0F / static_cast<float>(1 + better);
    }
    // Behind all others: a class that no neighbour has was not guessed.
    if (votes.count(label_of[i]) == 0 && label_of[i] >= 0 && label_of[i] < classes)
      scores.data<float>()[static_cast<std::int64_t>(i) * classes + label_of[i]] = -1.0F;
  }
  Tensor identity = zeros({classes, classes});
  for (std::int64_t c = 0; c < classes; ++c) identity.data<float>()[c * classes + c] = 1.0F;
  return classification_metrics(scores, identity, label_of);
}

}  // namespace twinlens
