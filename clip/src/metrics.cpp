#include "twinlens/clip/metrics.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>
#include <string>

#include "twinlens/core/autograd.h"
#include "twinlens/core/check.h"
#include "twinlens/core/ops.h"
#include "twinlens/kernels/error.h"

namespace twinlens {
namespace {

constexpr std::int64_t kChunk = 512;

// Calls f(row index, scores of that row against all items) for every query, a chunk of products at a time.
template <class F>
void for_scores(const Tensor& queries, const Tensor& items, F f) {
  check(queries.rank() == 2 && items.rank() == 2 && queries.size(1) == items.size(1), "metrics", "features must be (N, d) and (M, d)",
        {{"queries", queries}, {"items", items}});
  const NoGrad guard;
  const std::int64_t n = queries.size(0), m = items.size(0);
  for (std::int64_t begin = 0; begin < n; begin += kChunk) {
    const std::int64_t end = std::min(n, begin + kChunk);
    const Tensor scores = matmul(queries.slice(0, begin, end), items, {.transpose_b = true});
    const float* p = scores.data<float>();
    for (std::int64_t i = begin; i < end; ++i) f(i, p + (i - begin) * m);
  }
}

// How many of the m scores come before item `target`. What is not a number comes before all others, so that it wins nothing.
std::int64_t rank_of(const float* scores, std::int64_t m, std::int64_t target) {
  std::int64_t rank = 0;
  for (std::int64_t j = 0; j < m; ++j) rank += !(scores[j] <= scores[target]) || (scores[j] == scores[target] && j < target) ? 1 : 0;
  return rank;
}

std::int64_t best_rank(const float* scores, std::int64_t m, const std::vector<std::int64_t>& targets) {
  std::int64_t best = m;
  for (const std::int64_t target : targets) best = std::min(best, rank_of(scores, m, target));
  return best;
}

RecallAtK recall(std::vector<std::int64_t> ranks) {
  RecallAtK r;
  if (ranks.empty()) return r;
  const auto n = static_cast<double>(ranks.size());
  for (const std::int64_t rank : ranks) {
    r.r1 += rank < 1 ? 1.0 : 0.0;
    r.r5 += rank < 5 ? 1.0 : 0.0;
    r.r10 += rank < 10 ? 1.0 : 0.0;
    r.mean_rank += static_cast<double>(rank + 1);
  }
  r.r1 /= n;
  r.r5 /= n;
  r.r10 /= n;
  r.mean_rank /= n;
  std::sort(ranks.begin(), ranks.end());
  const std::size_t half = ranks.size() / 2;
  const double median = ranks.size() % 2 == 1 ? static_cast<double>(ranks[half]) : 0.5 * static_cast<double>(ranks[half - 1] + ranks[half]);
  r.median_rank = static_cast<double>(static_cast<std::int64_t>(median)) + 1.0;
  return r;
}

}  // namespace

Retrieval retrieval_metrics(const Tensor& images, const Tensor& texts, const std::vector<std::int64_t>& caption_of,
                            const std::vector<bool>& asked) {
  std::vector<std::vector<std::int64_t>> texts_of;
  for (const std::int64_t c : caption_of) texts_of.push_back({c});
  return retrieval_metrics(images, texts, texts_of, asked);
}

Retrieval retrieval_metrics(const Tensor& images, const Tensor& texts, const std::vector<std::vector<std::int64_t>>& texts_of,
                            const std::vector<bool>& asked) {
  const std::int64_t n = images.size(0), m = texts.size(0);
  check(static_cast<std::int64_t>(texts_of.size()) == n, "retrieval_metrics", "one list of texts per image is needed",
        {{"images", images}});
  check(asked.empty() || static_cast<std::int64_t>(asked.size()) == m, "retrieval_metrics", "one flag per text is needed",
        {{"texts", texts}});
  const auto is_asked = [&](std::int64_t text) { return asked.empty() || asked[static_cast<std::size_t>(text)]; };
  std::vector<std::vector<std::int64_t>> images_of(static_cast<std::size_t>(m));
  for (std::int64_t i = 0; i < n; ++i) {
    const auto& shown = texts_of[static_cast<std::size_t>(i)];
    check(!shown.empty(), "retrieval_metrics", "image " + std::to_string(i) + " has no text", {{"images", images}});
    for (const std::int64_t c : shown) {
      check(c >= 0 && c < m, "retrieval_metrics", "text " + std::to_string(c) + " of image " + std::to_string(i) + " does not exist",
            {{"texts", texts}});
      images_of[static_cast<std::size_t>(c)].push_back(i);
    }
  }
  Retrieval result;
  std::vector<std::int64_t> ranks;
  for_scores(images, texts, [&](std::int64_t i, const float* scores) {
    const auto& shown = texts_of[static_cast<std::size_t>(i)];
    if (is_asked(shown.front())) ranks.push_back(best_rank(scores, m, shown));
  });
  result.image_to_text = recall(ranks);
  result.images = asked.empty() ? n : static_cast<std::int64_t>(ranks.size());
  result.texts = asked.empty() ? m : std::count(asked.begin(), asked.end(), true);
  ranks.clear();
  for_scores(texts, images, [&](std::int64_t j, const float* scores) {
    const auto& correct = images_of[static_cast<std::size_t>(j)];
    if (correct.empty() || !is_asked(j)) return;
    ranks.push_back(best_rank(scores, n, correct));
  });
  result.text_to_image = recall(ranks);
  return result;
}

Classification classification_metrics(const Tensor& images, const Tensor& classes, const std::vector<std::int64_t>& label_of,
                                      const std::vector<bool>& asked) {
  const std::int64_t n = images.size(0), c = classes.size(0);
  check(static_cast<std::int64_t>(label_of.size()) == n && (asked.empty() || asked.size() == label_of.size()), "classification_metrics",
        "one label per image is needed", {{"images", images}});
  for (const Tensor* features : {&images, &classes}) {
    if (const std::int64_t bad = count_nonfinite(*features).to_ints()[0]; bad > 0) {
      throw NumericError(
          "classification_metrics: " + std::to_string(bad) + " of " + std::to_string(features->count()) + " numbers of the " +
          (features == &images ? "images" : "classes") +
          " are not finite; its arguments; the weights are not, or the precision is too low: use another checkpoint, or fp32");
    }
  }
  Classification result;
  result.classes = c;
  std::vector<double> hits(static_cast<std::size_t>(c), 0.0), counts(static_cast<std::size_t>(c), 0.0);
  for_scores(images, classes, [&](std::int64_t i, const float* scores) {
    if (!asked.empty() && !asked[static_cast<std::size_t>(i)]) return;
    const std::int64_t label = label_of[static_cast<std::size_t>(i)];
    ++result.images;
    check(label >= 0 && label < c, "classification_metrics", "label " + std::to_string(label) + " does not exist", {{"classes", classes}});
    const std::int64_t rank = rank_of(scores, c, label);
    result.top1 += rank < 1 ? 1.0 : 0.0;
    result.top5 += rank < 5 ? 1.0 : 0.0;
    hits[static_cast<std::size_t>(label)] += rank < 1 ? 1.0 : 0.0;
    counts[static_cast<std::size_t>(label)] += 1.0;
  });
  if (result.images == 0) return result;
  result.top1 /= static_cast<double>(result.images);
  result.top5 /= static_cast<double>(result.images);
  double present = 0.0;
  for (std::size_t k = 0; k < counts.size(); ++k) {
    if (counts[k] == 0.0) continue;
    result.mean_per_class_recall += hits[k] / counts[k];
    present += 1.0;
  }
  result.mean_per_class_recall /= present;
  return result;
}

std::vector<std::vector<std::int64_t>> nearest(const Tensor& queries, const Tensor& items, int k) {
  std::vector<std::vector<std::int64_t>> out;
  const std::int64_t m = items.size(0);
  check(k >= 0, "nearest", "k must be 0 or more; k=" + std::to_string(k));
  const auto count = static_cast<std::ptrdiff_t>(std::min<std::int64_t>(k, m));
  std::vector<std::int64_t> order(static_cast<std::size_t>(m));
  for_scores(queries, items, [&](std::int64_t, const float* scores) {
    std::iota(order.begin(), order.end(), 0);
    const auto score = [&](std::int64_t i) { return std::isnan(scores[i]) ? -std::numeric_limits<float>::infinity() : scores[i]; };
    std::partial_sort(order.begin(), order.begin() + count, order.end(),
                      [&](std::int64_t a, std::int64_t b) { return score(a) > score(b) || (score(a) == score(b) && a < b); });
    out.emplace_back(order.begin(), order.begin() + count);
  });
  return out;
}

}  // namespace twinlens
