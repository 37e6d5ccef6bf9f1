#include "twinlens/clip/linear_probe.h"

#include <algorithm>
#include <cmath>

#include "clip/src/lbfgs.h"

#include "twinlens/core/autograd.h"
#include "twinlens/core/check.h"
#include "twinlens/core/ops.h"
#include "twinlens/kernels/error.h"

namespace twinlens {
namespace {

// The objective over the classes that occur, of weights (K, E) and biases (K) in one vector.
class ProbeObjective {
 public:
  ProbeObjective(const Tensor& features, std::vector<std::int64_t> labels, std::int64_t classes, double c)
      : x_(dense(features)), labels_(std::move(labels)), k_(classes), e_(features.size(1)), c_(c) {}

  double operator()(const std::vector<double>& at, std::vector<double>& gradient) const {
    constexpr std::int64_t kChunk = 4096;
    const auto n = static_cast<std::int64_t>(labels_.size());
    const auto weights = static_cast<std::size_t>(k_ * e_);
    std::vector<float> rounded(at.size());
    std::transform(at.begin(), at.end(), rounded.begin(), [](double v) { return static_cast<float>(v); });
    const auto end_of_w = rounded.begin() + static_cast<std::ptrdiff_t>(weights);
    const Tensor w = from_vector(std::vector<float>(rounded.begin(), end_of_w), {k_, e_});
    const Tensor b = from_vector(std::vector<float>(end_of_w, rounded.end()), {k_});
    std::fill(gradient.begin(), gradient.end(), 0.0);
    double loss = 0.0;
    for (std::int64_t begin = 0; begin < n; begin += kChunk) {
      const Tensor x = x_.slice(0, begin, std::min(n, begin + kChunk));
      Tensor logits = dense(linear(x, w, b));
      loss += softmax_minus_labels(logits, begin, gradient.data() + weights);
      const std::vector<float> dw = matmul(logits, x, {.transpose_a = true}).to_vector();  // (K, E)
      for (std::size_t i = 0; i < weights; ++i) gradient[i] += static_cast<double>(dw[i]);
    }
    double squares = 0.0;
    for (std::size_t i = 0; i < weights; ++i) {
      squares += at[i] * at[i];
      gradient[i] += at[i] / c_;
    }
    for (double& g : gradient) g /= static_cast<double>(n);
    return (loss + squares / (2.0 * c_)) / static_cast<double>(n);
  }

 private:
  // Logits to softmax minus one-hot labels, in place; the sums over rows are added to db. Returns the sum of cross-entropies.
  double softmax_minus_labels(Tensor& logits, std::int64_t first, double* db) const {
    float* row = logits.data<float>();
    double loss = 0.0;
    for (std::int64_t i = 0; i < logits.size(0); ++i, row += k_) {
      const auto label = labels_[static_cast<std::size_t>(first + i)];
      const auto top = static_cast<double>(*std::max_element(row, row + k_));
      double total = 0.0;
      for (std::int64_t j = 0; j < k_; ++j) total += std::exp(static_cast<double>(row[j]) - top);
      loss += top + std::log(total) - static_cast<double>(row[label]);
      for (std::int64_t j = 0; j < k_; ++j) {
        const double d = std::exp(static_cast<double>(row[j]) - top) / total - (j == label ? 1.0 : 0.0);
        row[j] = static_cast<float>(d);
        db[j] += d;
      }
    }
    return loss;
  }

  Tensor x_;
  std::vector<std::int64_t> labels_;
  std::int64_t k_, e_;
  double c_;
};

// Such a row would leave the weights at their zeros.
void check_finite_rows(const Tensor& features) {
  if (count_nonfinite(features).to_ints()[0] == 0) return;
  for (std::int64_t i = 0; i < features.size(0); ++i) {
    if (count_nonfinite(features.slice(0, i, i + 1)).to_ints()[0] > 0)
      throw NumericError("linear_probe: features of row " + std::to_string(i) +
                         " are not finite; its argument; leave the row out, or embed it anew by other weights or in fp32");
  }
}

}  // namespace

Tensor LinearProbe::inputs(const Tensor& features) const { return concat({features, full({features.size(0), 1}, 1.0)}, 1); }

Tensor LinearProbe::classes() const { return concat({w, b.reshape({b.size(0), 1})}, 1); }

LinearProbe fit_linear_probe(const Tensor& features, const std::vector<std::int64_t>& labels, std::int64_t classes,
                             const ProbeOptions& options) {
  check(features.rank() == 2 && features.size(0) == static_cast<std::int64_t>(labels.size()) && !labels.empty() && classes > 0,
        "linear_probe", "needs one label for each of at least one features", {{"features", features}});
  check(options.c > 0.0, "linear_probe", "c = " + std::to_string(options.c) + " must be positive; OpenAI's is 0.316",
        {{"features", features}});
  const NoGrad guard;
  check_finite_rows(features);
  std::vector<std::int64_t> present = labels;
  std::sort(present.begin(), present.end());
  present.erase(std::unique(present.begin(), present.end()), present.end());
  check(present.front() >= 0 && present.back() < classes, "linear_probe", "labels must be in [0, classes)", {{"features", features}});
  std::vector<std::int64_t> compact;
  for (const std::int64_t label : labels) compact.push_back(std::lower_bound(present.begin(), present.end(), label) - present.begin());
  const auto k = static_cast<std::int64_t>(present.size());
  const std::int64_t e = features.size(1);
  std::vector<double> at(static_cast<std::size_t>(k * e + k), 0.0);
  const LbfgsResult result = minimize_lbfgs(ProbeObjective(features, compact, k, options.c), at, options.max_steps, options.tolerance);
  LinearProbe probe;
  probe.steps = result.steps;
  probe.converged = result.converged;
  probe.loss = result.value;
  probe.w = zeros({classes, e});
  probe.b = full({classes}, -1e30);
  for (std::int64_t j = 0; j < k; ++j) {
    float* row = probe.w.data<float>() + present[static_cast<std::size_t>(j)] * e;
    for (std::int64_t i = 0; i < e; ++i) row[i] = static_cast<float>(at[static_cast<std::size_t>(j * e + i)]);
    probe.b.data<float>()[present[static_cast<std::size_t>(j)]] = static_cast<float>(at[static_cast<std::size_t>(k * e + j)]);
  }
  return probe;
}

}  // namespace twinlens
