#include "clip/src/lbfgs.h"

#include <algorithm>
#include <cmath>
#include <deque>
#include <limits>

namespace twinlens {
namespace {

using Vector = std::vector<double>;

double dot(const Vector& a, const Vector& b) {
  double sum = 0.0;
  for (std::size_t i = 0; i < a.size(); ++i) sum += a[i] * b[i];
  return sum;
}
void add(Vector& y, double scale, const Vector& x) {
  for (std::size_t i = 0; i < x.size(); ++i) y[i] += scale * x[i];
}
Vector difference(const Vector& a, const Vector& b) {
  Vector out = a;
  add(out, -1.0, b);
  return out;
}
double largest(const Vector& v) {
  double most = 0.0;
  for (const double x : v) most = std::max(most, std::abs(x));
  return most;
}

// A step and the change of the gradient along it.
struct Curvature {
  Vector s, y;
  double rho;
};

// Minus the inverse Hessian, as far as the pairs know it, times the gradient.
Vector direction(const std::deque<Curvature>& pairs, const Vector& gradient) {
  Vector q = gradient;
  Vector alpha(pairs.size());
  for (std::size_t k = pairs.size(); k-- > 0;) {
    alpha[k] = pairs[k].rho * dot(pairs[k].s, q);
    add(q, -alpha[k], pairs[k].y);
  }
  const double scale = pairs.empty() ? 1.0 / std::max(1.0, std::sqrt(dot(gradient, gradient)))
                                     : 1.0 / (pairs.back().rho * dot(pairs.back().y, pairs.back().y));
  for (double& v : q) v *= scale;
  for (std::size_t k = 0; k < pairs.size(); ++k) add(q, alpha[k] - pairs[k].rho * dot(pairs[k].y, q), pairs[k].s);
  for (double& v : q) v = -v;
  return q;
}

struct Point {
  Vector x, gradient;
  double value = 0.0;
};

// The next point along d; false when none improves the value.
bool search(const Objective& objective, const Point& from, const Vector& d, Point& to) {
  constexpr double kDecrease = 1e-4, kCurvature = 0.9, kNoise = 1e-6;
  constexpr int kTries = 40;
  const double slope = dot(from.gradient, d);
  double low = 0.0, high = std::numeric_limits<double>::infinity(), t = 1.0;
  for (int i = 0; i < kTries; ++i) {
    to.x = from.x;
    add(to.x, t, d);
    to.value = objective(to.x, to.gradient);
    const double slope_there = dot(to.gradient, d);
    // Near the minimum, where values drown in rounding, the slope says whether they fell (Hager and Zhang 2005).
    const bool fell = to.value <= from.value + kDecrease * t * slope ||
                      (to.value <= from.value + kNoise * std::abs(from.value) && slope_there <= (2.0 * kDecrease - 1.0) * slope);
    if (!fell) {
      high = t;
    } else if (slope_there < kCurvature * slope) {
      low = t;
    } else {
      return true;
    }
    t = std::isinf(high) ? 2.0 * low : 0.5 * (low + high);
  }
  return to.value < from.value;
}

}  // namespace

LbfgsResult minimize_lbfgs(const Objective& objective, Vector& x, int max_steps, double tolerance) {
  constexpr std::size_t kPairs = 10;
  Point here{x, Vector(x.size()), 0.0}, next{x, Vector(x.size()), 0.0};
  here.value = objective(here.x, here.gradient);
  std::deque<Curvature> pairs;
  LbfgsResult result;
  while (!(result.converged = largest(here.gradient) <= tolerance) && result.steps < max_steps) {
    if (!search(objective, here, direction(pairs, here.gradient), next)) {
      if (pairs.empty()) {
        result.converged = true;  // not even straight down: rounding
        break;
      }
      pairs.clear();
      continue;
    }
    ++result.steps;
    Curvature pair{difference(next.x, here.x), difference(next.gradient, here.gradient), 0.0};
    if (const double sy = dot(pair.s, pair.y); sy > 0.0) {
      pair.rho = 1.0 / sy;
      pairs.push_back(std::move(pair));
      if (pairs.size() > kPairs) pairs.pop_front();
    }
    std::swap(here, next);
  }
  x = here.x;
  result.value = here.value;
  return result;
}

}  // namespace twinlens
