#pragma once
// Linear probe: multinomial logistic regression on frozen features (Radford et al. 2021, section 3.2).
//
// Minimises mean cross-entropy + l2 / 2 (|W|^2 + |b|^2) over all features at once by Nesterov's accelerated gradient with the step 1 / L of
// the loss's own curvature bound: no learning rate to choose, the same bits on every run. (Were the bias free, a class without pictures
// would send it to infinity.) Features are centred first.

#include <cstdint>
#include <vector>

#include "twinlens/core/tensor.h"

namespace twinlens {

struct ProbeOptions {
  double l2 = 1e-4;
  int max_steps = 3000;
  double tolerance = 1e-3;  // converged when the gradient's norm has fallen to this share of the first
};

struct LinearProbe {
  Tensor centre;  // (E)
  Tensor w;       // (C, E)
  Tensor b;       // (C)
  int steps = 0;
  bool converged = false;
  double loss = 0.0;

  // What classification_metrics takes: (N, E + 1) and (C, E + 1), whose products are the logits.
  Tensor inputs(const Tensor& features) const;
  Tensor classes() const;
};

// features (N, E) f32 on the CPU, labels in [0, classes).
LinearProbe fit_linear_probe(const Tensor& features, const std::vector<std::int64_t>& labels, std::int64_t classes,
                             const ProbeOptions& options = {});

}  // namespace twinlens
