#pragma once
// Linear probe: multinomial logistic regression on frozen features (Radford et al. 2021, section 3.2 and appendix A.3).
//
// Minimises what scikit-learn's LogisticRegression does,  sum_i CE(W x_i + b, y_i) + |W|^2 / (2 C),  the bias free, over all features at
// once by L-BFGS (Liu and Nocedal 1989; ten pairs) from zero: no learning rate to choose, the same bits on every run. Products are f32,
// sums and the optimizer's state f64. Classes without a picture get no weights and never win.

#include <cstdint>
#include <vector>

#include "twinlens/core/tensor.h"

namespace twinlens {

struct ProbeOptions {
  double c = 0.316;  // inverse strength of the regularisation; OpenAI's
  int max_steps = 1000;
  double tolerance = 1e-5;  // converged when no element of the gradient (divided by N) is larger
};

struct LinearProbe {
  Tensor w;  // (classes, E)
  Tensor b;  // (classes)
  int steps = 0;
  bool converged = false;
  double loss = 0.0;  // the objective divided by N

  // What classification_metrics takes: (N, E + 1) and (C, E + 1), whose products are the logits.
  Tensor inputs(const Tensor& features) const;
  Tensor classes() const;
};

// features (N, E) f32 on the CPU, labels in [0, classes). Throws NumericError naming the row for features that are not finite.
LinearProbe fit_linear_probe(const Tensor& features, const std::vector<std::int64_t>& labels, std::int64_t classes,
                             const ProbeOptions& options = {});

}  // namespace twinlens
