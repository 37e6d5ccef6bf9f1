#pragma once
// Limited-memory BFGS (Liu and Nocedal 1989) with a bisecting search for the weak Wolfe conditions, in double precision.

#include <functional>
#include <vector>

namespace twinlens {

struct LbfgsResult {
  int steps = 0;
  bool converged = false;
  double value = 0.0;
};

// Value at x, and the gradient into `gradient` (of the size of x).
using Objective = std::function<double(const std::vector<double>& x, std::vector<double>& gradient)>;

// Moves x to a minimum: converged when no element of the gradient exceeds `tolerance`, or when rounding lets no step improve the value.
LbfgsResult minimize_lbfgs(const Objective& objective, std::vector<double>& x, int max_steps, double tolerance);

}  // namespace twinlens
