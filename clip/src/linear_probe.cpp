#include "twinlens/clip/linear_probe.h"

#include <algorithm>
#include <cmath>

#include "twinlens/core/autograd.h"
#include "twinlens/core/check.h"
#include "twinlens/core/ops.h"

namespace twinlens {
namespace {

// A block of unknowns with its look-ahead point, where gradients are taken.
struct Unknown {
  Tensor value, ahead;

  explicit Unknown(const Shape& shape) : value(zeros(shape)), ahead(zeros(shape)) { ahead.set_requires_grad(true); }
  void step(double rate, double momentum) {
    const NoGrad guard;
    const Tensor next = sub(ahead, affine(ahead.grad(), rate, 0.0));
    ahead.copy_(add(next, affine(sub(next, value), momentum, 0.0)));
    value = next;
    ahead.set_grad({});
  }
};

double norm_of(const Tensor& a, const Tensor& b) {
  return std::hypot(static_cast<double>(norm2(a).item()), static_cast<double>(norm2(b).item()));
}

}  // namespace

Tensor LinearProbe::inputs(const Tensor& features) const { return concat({sub(features, centre), full({features.size(0), 1}, 1.0)}, 1); }

Tensor LinearProbe::classes() const { return concat({w, b.reshape({b.size(0), 1})}, 1); }

LinearProbe fit_linear_probe(const Tensor& features, const std::vector<std::int64_t>& labels, std::int64_t classes,
                             const ProbeOptions& options) {
  check(features.rank() == 2 && features.size(0) == static_cast<std::int64_t>(labels.size()) && !labels.empty() && classes > 0,
        "linear_probe", "needs one label for each of at least one features", {{"features", features}});
  LinearProbe probe;
  Tensor x;
  double curvature = options.l2;
  {
    const NoGrad guard;
    probe.centre = mean(features, {.dims = {0}});
    x = sub(features, probe.centre);
    // The curvature of softmax cross-entropy is at most half the largest squared length of an input (1 for the bias).
    const std::vector<float> lengths = sum(square(x), {.dims = {1}}).to_vector();
    curvature += 0.5 * (1.0 + static_cast<double>(*std::max_element(lengths.begin(), lengths.end())));
  }
  const Tensor targets = from_vector(labels, {static_cast<std::int64_t>(labels.size())});
  const double rate = 1.0 / curvature, root = std::sqrt(options.l2 / curvature), momentum = (1.0 - root) / (1.0 + root);
  Unknown w({classes, features.size(1)}), b({classes});
  double first = 0.0;
  for (probe.steps = 0; probe.steps < options.max_steps && !probe.converged; ++probe.steps) {
    const Tensor squares = add(sum(square(w.ahead)), sum(square(b.ahead)));
    const Tensor loss = add(cross_entropy(linear(x, w.ahead, b.ahead), targets), affine(squares, 0.5 * options.l2, 0.0));
    backward(loss);
    probe.loss = static_cast<double>(loss.item());
    const double norm = norm_of(w.ahead.grad(), b.ahead.grad());
    if (probe.steps == 0) first = norm;
    probe.converged = norm <= options.tolerance * first;
    w.step(rate, momentum);
    b.step(rate, momentum);
  }
  probe.w = w.value;
  probe.b = b.value;
  return probe;
}

}  // namespace twinlens
